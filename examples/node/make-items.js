// Writes items.json: films of five genres, each a vector of eight numbers near its genre's own. No chance is involved,
// so that the file, and with it the model's version, is the same wherever it is made.

const GENRES = ["Space", "Western", "Noir", "Musical", "Heist"];
const PER_GENRE = 12;
const DIM = 8;

const wave = (seed, axis) => Math.sin(1.3 * seed + 2.1 * axis + 0.7 * seed * axis);
const items = [];
for (let number = 0; number < GENRES.length * PER_GENRE; number += 1) {
  const genre = number % GENRES.length;
  const vector = Array.from({ length: DIM }, (_, axis) => wave(genre + 1, axis) + 0.3 * wave(number + 11, axis));
  items.push({
    id: `film-${number + 1}`,
    title: `${GENRES[genre]} ${Math.floor(number / GENRES.length) + 1}`,
    vector: vector.map((value) => Number(value.toFixed(4))),
  });
}
process.stdout.write(`[\n${items.map((item) => `  ${JSON.stringify(item)}`).join(",\n")}\n]\n`);
