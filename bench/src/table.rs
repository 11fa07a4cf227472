//! Markdown tables.

use std::fmt::Write as _;

use crate::contest::Score;
use crate::spread::milliseconds;

/// A Markdown table with a heading row.
pub fn markdown(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", heading.join(" | "), "---|".repeat(heading.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("writing to a string can't fail");
    }
    text
}

/// Scores as a table, each beside its ratio to the first.
pub fn scores(what: &str, scores: &[Score]) -> String {
    let Some(first) = scores.first() else {
        return String::new();
    };
    let rows: Vec<_> = scores
        .iter()
        .map(|score| {
            vec![
                score.name.clone(),
                milliseconds(score.wall.median()),
                milliseconds(score.cpu.median()),
                ratio(score.wall.ratio_to(&first.wall)),
                ratio(score.cpu.ratio_to(&first.cpu)),
            ]
        })
        .collect();
    let against = format!("to {}", first.name);
    markdown(
        &[what, "wall, median", "CPU, median", &format!("wall {against}"), &format!("CPU {against}")],
        &rows,
    )
}

/// Two digits that say something.
fn ratio(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let table = markdown(&["a", "b"], &[vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(table, "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
