//! Aligned columns for people, page by page: a long list is printed as it comes and never held whole.

use crate::failure::Failure;
use crate::output::{clean, line};

/// On which side a column's cells are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Blanks between two columns.
const GAP: &str = "  ";

/// A table under way. Widths only grow: a later page with longer names moves its own rows, not the ones before.
pub struct Table {
    columns: Vec<(String, Align)>,
    widths: Vec<usize>,
    head: Head,
}

#[derive(PartialEq)]
enum Head {
    Due,
    Printed,
}

impl Table {
    /// A table with these column heads.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        let columns: Vec<_> = columns.into_iter().map(|(name, align)| (clean(name), align)).collect();
        let widths = columns.iter().map(|(name, _)| width(name)).collect();
        Self { columns, widths, head: Head::Due }
    }

    /// The lines of one page; before the first page also the head.
    pub fn page(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
        for row in &rows {
            for (known, cell) in self.widths.iter_mut().zip(row) {
                *known = (*known).max(width(cell));
            }
        }
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if self.head == Head::Due {
            self.head = Head::Printed;
            let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
            lines.push(self.line(&names));
        }
        lines.extend(rows.iter().map(|row| self.line(row)));
        lines
    }

    /// Prints one page.
    pub fn print(&mut self, rows: &[Vec<String>]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        line(&self.page(rows).join("\n"))
    }

    fn line(&self, cells: &[String]) -> String {
        let mut text = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let (wanted, align) = (self.widths.get(at), self.columns.get(at).map(|column| column.1));
            let blanks = " ".repeat(wanted.map_or(0, |wanted| wanted.saturating_sub(width(cell))));
            if at > 0 {
                text.push_str(GAP);
            }
            match align.unwrap_or(Align::Left) {
                Align::Left => text.extend([cell.as_str(), &blanks]),
                Align::Right => text.extend([&blanks, cell.as_str()]),
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[&[&str]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        let lines = table.page(&rows(&[&["a", "1", ""], &["längst", "10240", "x"]]));
        assert_eq!(lines, ["NAME     SIZE  NOTE", "a           1", "längst  10240  x"]);
    }

    #[test]
    fn the_second_page_has_no_head_and_keeps_the_widths_of_the_first() {
        let mut table = Table::new([("N", Align::Left), ("M", Align::Left)]);
        table.page(&rows(&[&["long", "1"]]));
        assert_eq!(table.page(&rows(&[&["s", "2"]])), ["s     2"]);
    }

    #[test]
    fn a_cell_with_a_line_break_stays_on_its_line() {
        let mut table = Table::new([("N", Align::Left)]);
        assert_eq!(table.page(&rows(&[&["a\nb"]])), ["N", "a\\u{a}b"]);
    }
}
