//! The advice as lines of text: the proposal, why, and a table of the alternatives.

use super::{Advice, Choice, Point};
use crate::model::number;
use crate::plan::draft::wrapped;

/// The maximum number of unique constraints that are named in a cell.
const MAX_NAMED: u64 = 2;
/// The widths of the columns that break lines: what is kept is short, the others share the rest of a line.
const LIMITS: [usize; 6] = [20, 12, 10, 8, 26, 30];

/// The proposal, the reasons for it, and all choices. `by` is the column that the user asked for, as SQL.
pub fn head(advice: &Advice, by: Option<&str>) -> Vec<String> {
    let proposed = by.map_or(advice.choices.first(), |by| advice.choices.iter().find(|one| one.column == by));
    let Some(proposed) = proposed else { return none(advice) };
    let what = if by.is_some() { "as requested" } else { "proposal" };
    let mut lines = wrapped(&format!("{what}: partition by {}", with_interval(proposed)), "", "  ");
    for (mark, points) in
        [("+", &proposed.reasons), ("-", &proposed.gives_up), ("-", &proposed.costs), ("!", &proposed.first)]
    {
        for point in points {
            let text = match mark {
                "!" => format!("before the job: {}", point.text),
                _ if proposed.gives_up.contains(point) => format!("gives up: {}", point.text),
                _ => point.text.clone(),
            };
            lines.extend(wrapped(&text, &format!("  {mark} "), "    "));
        }
    }
    if advice.choices.len() > 1 {
        lines.push(String::new());
        lines.extend(table(&advice.choices, &proposed.column));
        let others = advice.choices.iter().find(|one| one.column != proposed.column);
        if let Some(other) = others {
            lines.push(String::new());
            let option = crate::model::shell::word(&other.column);
            let text =
                format!("\"reads all\": reads all partitions; to choose another column: --by {option}");
            lines.extend(wrapped(&text, "", "  "));
        }
    }
    lines.extend(not_considered(advice));
    lines
}

fn none(advice: &Advice) -> Vec<String> {
    let mut lines = wrapped(
        "proposal: none, because no column can be the partition column. It must be a timestamptz, timestamp, date, \
         smallint, integer or bigint that divides the rows into ranges. A backfill can add one, such as created_at: \
         see docs/backfill.md",
        "",
        "  ",
    );
    lines.extend(not_considered(advice));
    lines
}

fn with_interval(choice: &Choice) -> String {
    let count =
        choice.partitions.map_or(String::new(), |n| format!(", about {}", number::counted(n, "partition")));
    let every = match choice.every.parse::<u64>() {
        Ok(n) => format!("{} values", number::count(n)),
        Err(_) => choice.every.clone(),
    };
    format!("{} ({}), every {every}{count}", choice.column, choice.sql_type)
}

fn not_considered(advice: &Advice) -> Vec<String> {
    let each = advice.unsuitable.iter().map(|point| format!("{} {}", point.object, point.text));
    match each.collect::<Vec<_>>().join("; ") {
        all if all.is_empty() => Vec::new(),
        all => wrapped(&format!("not considered: {all}"), "", "  "),
    }
}

/// The choices as a table. A cell that is too long continues in the next line.
fn table(choices: &[Choice], proposed: &str) -> Vec<String> {
    let header = ["by", "every", "partitions", "keeps", "gives up", "costs"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(choices.iter().map(|choice| {
        let total = choice.keeps.len() + choice.gives_up.len();
        let keeps = match choice.gives_up.len() {
            _ if total == 0 => "-".to_owned(),
            0 => format!("all {total}"),
            _ => format!("{} of {total}", choice.keeps.len()),
        };
        [
            choice.column.clone(),
            choice.every.clone(),
            choice.partitions.map_or("unknown".to_owned(), number::count),
            keeps,
            given_up(&choice.gives_up),
            costs(choice),
        ]
    }));
    let broken: Vec<Vec<Vec<String>>> = rows
        .iter()
        .map(|row| row.iter().zip(LIMITS).map(|(cell, limit)| broken(cell, limit)).collect())
        .collect();
    let width = |n: usize| {
        let cells = broken.iter().flat_map(|row| &row[n]);
        cells.map(|part| part.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..LIMITS.len()).map(width).collect();
    let mut lines = Vec::new();
    for (number, row) in broken.iter().enumerate() {
        let is_proposed = number > 0 && choices[number - 1].column == proposed;
        let height = row.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height {
            let mark = if is_proposed && line == 0 { "> " } else { "  " };
            let cells = row.iter().zip(&widths).map(|(cell, width)| {
                let part = cell.get(line).map_or("", String::as_str);
                format!("{part:<width$}")
            });
            lines.push(format!("{mark}{}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned());
        }
    }
    lines
}

/// The constraints that end: the key, the unique constraints, and the number of foreign keys.
fn given_up(points: &[Point]) -> String {
    let of = |code: &str| points.iter().filter(|point| point.code == code).collect::<Vec<_>>();
    let keys = points.iter().filter(|point| point.code.ends_with("_key") && point.code != "foreign_key");
    let mut parts: Vec<String> = keys.map(|point| point.text.clone()).collect();
    let (unique, foreign) = (of("unique"), of("foreign_key"));
    match unique.len() as u64 {
        n if n > MAX_NAMED => parts.push(number::counted(n, "unique constraint")),
        _ => parts.extend(unique.iter().map(|point| point.text.clone())),
    }
    if !foreign.is_empty() {
        parts.push(number::counted(foreign.len() as u64, "foreign key"));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
}

fn costs(choice: &Choice) -> String {
    let first = choice.first.iter().map(|point| format!("first {}", point.text));
    let costs = choice.costs.iter().filter_map(|point| {
        Some(match point.code {
            "key_lookup" => format!("lookup by ({}) reads all", point.object),
            "time_lookup" => format!("query by {} reads all", point.object),
            "rows_move" => "updates move rows".to_owned(),
            "scattered" => "nothing to drop by age".to_owned(),
            "no_index" => "no index".to_owned(),
            _ => return None,
        })
    });
    let all: Vec<String> = first.chain(costs).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}

/// Breaks a cell into lines of at most `limit` characters; a longer word has a line of its own.
fn broken(cell: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
