#!/bin/sh
# Makes a private CA and two certificates for one deployment, unless they are there: certificates.sh FOLDER [NAME ...]
#   ca.pem                     what callers check services by
#   service.pem, service.key   shown by every service, to its callers and when it calls others; valid for the NAMEs
#   client.pem, client.key     shown by people and scrapers
set -eu
umask 027
folder=${1:?usage: certificates.sh FOLDER [NAME ...]}
shift
[ ! -f "$folder/client.pem" ] || { echo "certificates are in $folder already"; exit 0; }
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

names="DNS:localhost,IP:127.0.0.1"
for name in "$@"; do names="$names,DNS:$name"; done

# Elliptic keys: small, and quick to make. A year for the certificates, ten for the CA, whose key is thrown away.
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

key "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -days 3650 -subj "/CN=recsae deployment CA" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -out "$work/ca.pem"

issue() { # NAME SUBJECT USAGE [ALTERNATIVE NAMES]
    key "$work/$1.key"
    openssl req -new -key "$work/$1.key" -subj "/CN=$2" -out "$work/$1.csr"
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%s\n' "$3" > "$work/$1.ext"
    [ -z "${4:-}" ] || printf 'subjectAltName=%s\n' "$4" >> "$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
        -extfile "$work/$1.ext" -out "$work/$1.pem" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
}
issue service "recsae service" serverAuth,clientAuth "$names"
issue client "recsae client" clientAuth

cp "$work/ca.pem" "$work/service.key" "$work/service.pem" "$work/client.key" "$folder/"
chmod 0640 "$folder/client.key" # a scraper is in the group, not the owner
cp "$work/client.pem" "$folder/" # last: its presence says that everything is there
echo "certificates made in $folder for $names"
