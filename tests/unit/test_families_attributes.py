"""Attributes of users and columns of items as a network reads them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsae.datasets.attributes import typed_rows
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import UserTable
from recsae.recommenders.description import AttributeInput
from recsae.recommenders.families.attributes import ItemColumns, UserAttributes, attribute_inputs, attributes_of
from recsae.recommenders.inputs import attribute_column

PLANTED = make_planted(seed=0, n_users=100, n_items=40, n_concepts=4, mean_length=10).dataset


def users(**columns: list[str]) -> UserTable:
    count = len(next(iter(columns.values())))
    ids = tuple(f"u{number}" for number in range(count))
    return UserTable(ids, {name: tuple(values) for name, values in columns.items()})


def test_many_numbers_are_a_number_whose_default_is_their_median() -> None:
    table = users(age=[str(number) for number in range(20, 51)])
    assert attribute_inputs(table) == (AttributeInput("age", "number", default=35.0),)


def test_few_numbers_are_categories_spelt_as_in_the_file() -> None:
    table = users(band=["18", "25", "35"] * 10)
    assert attribute_inputs(table) == (AttributeInput("band", "category", ("18", "25", "35")),)


def test_a_value_few_users_carry_is_unknown() -> None:
    table = users(job=["cook"] * 10 + ["smith"] * 9 + ["pilot"] * 4)
    (found,) = attribute_inputs(table)
    assert found.values == ("cook", "smith")
    assert attributes_of(table, [found])[0].tolist() == [1] * 10 + [2] * 9 + [0] * 4


@pytest.mark.parametrize(
    "column",
    [
        [f"V{number}X" for number in range(40)],  # a code of each user's own
        ["same"] * 40,
        [""] * 40,
        [f"V{number}X" for number in range(25)] + ["a", "b"] * 7,  # most cells are such codes
    ],
)
def test_a_column_that_tells_nothing_of_groups_is_left_out(column: list[str]) -> None:
    assert attribute_inputs(users(code=column)) == ()


def test_values_are_those_serving_sends() -> None:
    table = users(age=[*map(str, range(30)), ""], band=[*["1", "2.5"] * 15, ""], job=[*["cook", "smith"] * 15, ""])
    inputs = attribute_inputs(table)
    assert [one.name for one in inputs] == ["age", "band", "job"]
    rows = typed_rows(table.columns, 31)
    for one, column in zip(inputs, attributes_of(table, inputs), strict=True):
        np.testing.assert_array_equal(column.numpy(), attribute_column(one, rows))
    band, job = (attributes_of(table, inputs)[at].tolist() for at in (1, 2))
    assert band == job == [1, 2] * 15 + [0]


@pytest.fixture
def network() -> UserAttributes:
    torch.manual_seed(0)
    inputs = (AttributeInput("age", "number", default=4.0), AttributeInput("job", values=("a", "b")))
    made = UserAttributes(inputs, [torch.arange(9.0), torch.ones(9, dtype=torch.int64)], dim=3)
    torch.nn.init.normal_(made.constant)
    return made.eval()


def test_an_unknown_category_and_a_number_below_every_step_add_nothing(network: UserAttributes) -> None:
    found = network(torch.tensor([-5.0, -5.0]), torch.tensor([0, 2]))
    torch.testing.assert_close(found[0], network.constant)
    weights = network.state_dict()
    torch.testing.assert_close(found[1], network.constant + weights["parts.1.vectors.weight"][2])


def test_a_number_adds_a_vector_for_each_step_it_has_climbed(network: UserAttributes) -> None:
    weights = network.state_dict()
    assert weights["parts.0.steps"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    found = network(torch.tensor([3.5]), torch.tensor([0]))
    torch.testing.assert_close(found[0], network.constant + weights["parts.0.vectors"][:3].sum(0))


def test_training_hides_a_tenth_of_the_attributes(network: UserAttributes) -> None:
    torch.manual_seed(1)
    found = network.train()(torch.full((4000,), -5.0), torch.full((4000,), 2))
    hidden = (found == network.constant).all(1).float().mean()
    assert abs(hidden - 0.1) < 0.025  # five standard errors


def test_no_attribute_is_one_constant() -> None:
    assert UserAttributes((), [], dim=3)().shape == (3,)


def test_an_item_is_the_sum_of_its_columns_values() -> None:
    table = replace(PLANTED.items, columns={"genre": tuple(["x|y", "x", "y", ""] * 10)})
    torch.manual_seed(0)
    columns = ItemColumns(replace(PLANTED, items=table), dim=2)
    found = columns()
    assert found.shape == (41, 2)
    assert torch.equal(found[[0, 4]], torch.zeros(2, 2))
    torch.testing.assert_close(found[1], found[2] + found[3])
    assert found[2].abs().min() > 0


def test_items_without_columns_add_nothing() -> None:
    bare = replace(PLANTED, items=replace(PLANTED.items, columns={}))
    assert torch.equal(ItemColumns(bare, dim=2)(), torch.zeros(41, 2))
