//! Tables as Markdown, CSV, JSON or JSON lines.

use super::args::TableFormat;
use serde_json::{Map, Value};
use std::fmt::Write;

/// A table: one JSON value per cell, so that numbers stay numbers in JSON.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[&str]) -> Table {
        Table { columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows: vec![] }
    }

    /// Adds a row; as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<Value>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(cells);
    }

    /// The text in a format.
    pub fn render(&self, format: TableFormat) -> String {
        match format {
            TableFormat::Md => self.markdown(),
            TableFormat::Csv => self.csv(),
            TableFormat::Json => format!("{}\n", pretty(&self.records())),
            TableFormat::Jsonl => self.objects().fold(String::new(), |mut s, o| {
                let _ = writeln!(s, "{o}");
                s
            }),
        }
    }

    /// The rows as JSON objects.
    pub fn records(&self) -> Value {
        Value::Array(self.objects().collect())
    }

    fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        self.rows.iter().map(|row| {
            Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<String, Value>>())
        })
    }

    fn markdown(&self) -> String {
        let cells: Vec<Vec<String>> = self.rows.iter().map(|r| r.iter().map(plain).collect()).collect();
        let width = |i: usize| {
            cells.iter().map(|r| r[i].chars().count()).chain([self.columns[i].chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len())
            .map(|i| !self.rows.is_empty() && self.rows.iter().all(|r| r[i].is_number()))
            .collect();
        let mut out = String::new();
        let mut line = |cells: &[String]| {
            for ((cell, &w), &right) in cells.iter().zip(&widths).zip(&numeric) {
                let pad = " ".repeat(w - cell.chars().count());
                let _ = if right { write!(out, "| {pad}{cell} ") } else { write!(out, "| {cell}{pad} ") };
            }
            out.push_str("|\n");
        };
        line(&self.columns);
        let rule = |(i, &w): (usize, &usize)| {
            if numeric[i] { format!("{}:", "-".repeat(w - 1)) } else { "-".repeat(w) }
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        for row in &cells {
            line(row);
        }
        out
    }

    fn csv(&self) -> String {
        let quote = |s: &str| {
            if s.contains([',', '"', '\n', '\r']) { format!("\"{}\"", s.replace('"', "\"\"")) } else { s.to_owned() }
        };
        let mut out = String::new();
        let join = |cells: Vec<String>| cells.iter().map(|c| quote(c)).collect::<Vec<_>>().join(",");
        let _ = writeln!(out, "{}", join(self.columns.clone()));
        for row in &self.rows {
            let _ = writeln!(out, "{}", join(row.iter().map(plain).collect()));
        }
        out
    }
}

/// A number with so many decimals, as a JSON number.
pub fn rounded(value: f64, decimals: i32) -> Value {
    let scale = 10f64.powi(decimals);
    serde_json::json!((value * scale).round() / scale)
}

/// JSON for people: indented.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        Value::Array(a) => a.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table {
        let mut t = Table::new(&["name", "n"]);
        t.row(vec![json!("a,b"), json!(1.5)]);
        t.row(vec![json!("long name"), json!(12)]);
        t
    }

    #[test]
    fn markdown_aligns_numbers_right() {
        let want = "| name      |   n |\n| --------- | --: |\n| a,b       | 1.5 |\n| long name |  12 |\n";
        assert_eq!(table().render(TableFormat::Md), want);
    }

    #[test]
    fn csv_quotes() {
        assert_eq!(table().render(TableFormat::Csv), "name,n\n\"a,b\",1.5\nlong name,12\n");
    }

    #[test]
    fn json_lines_keep_numbers() {
        assert_eq!(
            table().render(TableFormat::Jsonl),
            "{\"n\":1.5,\"name\":\"a,b\"}\n{\"n\":12,\"name\":\"long name\"}\n"
        );
    }
}
