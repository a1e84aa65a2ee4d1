//! A page that needs no other file: the tables, and the plots as inline SVG.

use anyhow::Result;

use super::super::figure::Results;
use super::tried::{TRIED, TRIED_HEADS};
use super::{HEADS, LATENCY_HEADS, POINT_HEADS, cells, circumstances, latency_cells, plot, point_cells};

const STYLE: &str = "body { font: 14px sans-serif; margin: 2em auto; max-width: 75em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 2em } th { text-align: left }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd } tr.MISSED { background: #fdd }
svg { max-width: 100%; height: auto }";

/// The page as HTML.
pub fn page(results: &Results) -> Result<String> {
    let mut body = String::from("<h1>pgstrata: batch throughput</h1>\n");
    for line in circumstances(results).iter().chain(&results.notes) {
        body += &format!("<p>{}</p>\n", escaped(line));
    }
    body += "<h2>Figures and their goals</h2>\n";
    body += &table(&HEADS, results.figures.iter().map(cells));
    if !results.runs.is_empty() {
        body += "<h2>Duration of each phase</h2>\n";
        body += &plot::phases(&results.runs)?;
        body += "<h2>Throughput over time, and durations of chunks</h2>\n";
        for run in &results.runs {
            let (throughput, chunks) = (plot::throughput(run)?, plot::chunks(run)?);
            body += &format!("<h3>{}</h3>\n<div>{throughput}{chunks}</div>\n", escaped(&run.name));
        }
    }
    if !results.points.is_empty() {
        body += "<h2>The copy under different conditions</h2>\n";
        body += &table(&POINT_HEADS, results.points.iter().map(point_cells));
    }
    if !results.latencies.is_empty() {
        body += "<h2>Latency of the application</h2>\n";
        body += &table(&LATENCY_HEADS, latency_cells(results).into_iter());
    }
    body += "<h2>What was tried</h2>\n";
    body += &table(&TRIED_HEADS, TRIED.iter().map(|row| row.map(str::to_owned)));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pgstrata: batch throughput</title>\n\
         <style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    ))
}

/// A table. A row is marked if its last cell is `MISSED`.
fn table<const N: usize>(heads: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let heads: String = heads.iter().map(|head| format!("<th>{}</th>", escaped(head))).collect();
    let mut text = format!("<table>\n<tr>{heads}</tr>\n");
    for row in rows {
        let mark = if row.last().is_some_and(|cell| cell == "MISSED") { " class=\"MISSED\"" } else { "" };
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        text += &format!("<tr{mark}>{cells}</tr>\n");
    }
    text + "</table>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
