"""The page of bad input says what the tests check."""

import bad_input_table


def test_the_page_is_that_of_the_rows() -> None:
    assert bad_input_table.PAGE.read_text(encoding="utf-8") == bad_input_table.page(), "run: make bad-input"
