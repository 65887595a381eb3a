//! Columns of text for a terminal: a header with a line below it, words to the left and numbers to the right.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    Words(&'a str),
    Numbers(&'a str),
}

/// Lines end where their text ends. No row has more cells than there are columns; missing ones are empty.
pub fn grid(columns: &[Column<'_>], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(line));
    table.set_header(columns.iter().map(|column| match column {
        Column::Words(name) | Column::Numbers(name) => *name,
    }));
    table.add_rows(rows);
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 1));
        match kind {
            Column::Words(_) => column.set_cell_alignment(CellAlignment::Left),
            Column::Numbers(_) => column.set_cell_alignment(CellAlignment::Right),
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_and_numbers_right() {
        let columns = [Column::Words("load"), Column::Numbers("p99")];
        let rows = [["one", "1.2 ms"], ["another", "-"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        let expected = "\
load        p99
────────────────
one      1.2 ms
another       -
";
        assert_eq!(grid(&columns, rows), expected);
    }
}
