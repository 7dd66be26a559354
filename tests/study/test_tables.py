from study.tables import table


def test_only_columns_of_numbers_are_right_aligned():
    rows = [('2', '+1.5', '-3'), ('4', '-0.2', '3.0 (+1.0)')]
    lines = table(('1', 'all', 'some'), rows).split('\n')
    assert lines[1] == '| --- | ---: | --- |'
    assert [cell.strip() for cell in lines[3].strip('|').split('|')] == ['4', '-0.2', '3.0 (+1.0)']
