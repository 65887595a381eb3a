//! `--report FILE.html`: one file that shows a result to people. It needs no network, says so to the browser
//! (Content-Security-Policy), and follows the reader's choice of a light or a dark page.
//!
//! The drawings are SVG made here. The only script shows values under the pointer; without it everything can be
//! read, the tables hold what the drawings show.

use std::fmt::Write;

use crate::load::result::{Outcome, Results, Step};

use super::figure::{Figure, Series};
use super::verdict::Tone;
use super::{numbers, table, verdict};

mod chart;
mod heat;
mod plots;

const STYLE: &str = include_str!("html/style.css");
const HOVER: &str = include_str!("html/hover.js");

/// Figures that stand large above the drawings, where they were measured, with what is said below each.
const CARDS: &[(&str, &str)] = &[
    ("rate", "messages a second"),
    ("deliveries", "deliveries a second"),
    ("p50", "p50 of deliveries"),
    ("p99", "p99 of deliveries"),
    ("last.p99", "p99 of the last subscriber"),
    ("cpu", "server CPU a delivery"),
    ("lost", "lost"),
    ("handshakes", "handshakes a second"),
    ("subscribed", "until all were subscribed"),
    ("memory.server", "server memory a connection"),
    ("memory.kernel", "kernel memory a connection"),
];

pub fn page(results: &Results) -> String {
    let title = format!("outpour bench: {}", results.scenario.name);
    let charts = plots::all(results);
    let charts = match charts.is_empty() {
        true => String::new(),
        false => format!("<h2>Pictures</h2>\n<div class=\"charts\">\n{charts}</div>\n"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{}</h1>\n<p class=\"sub\">{} · {}</p>\n{}{}{charts}{}{}{}{}{}{}{}\
         </main>\n<script>\n{HOVER}</script>\n</body>\n</html>\n",
        escape(&title),
        escape(&format!(
            "{}: {}",
            results.target.name, results.scenario.name
        )),
        escape(&results.began_utc),
        escape(results.network.name()),
        outcome(results),
        cards(results),
        steps(results),
        latencies(results),
        beside(results),
        storms(results),
        memory(results),
        threads(results),
        facts(results),
    )
}

/// Text that is nothing but text in HTML, inside a tag's quotes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn outcome(results: &Results) -> String {
    let words = verdict::words(results);
    let (class, sign) = match words.tone {
        Tone::Good => ("good", "✓"),
        Tone::Doubtful => ("doubtful", "!"),
        Tone::Bad => ("bad", "✕"),
    };
    let sentences: String = words
        .sentences
        .iter()
        .map(|sentence| format!("<p>{}</p>", escape(sentence)))
        .collect();
    format!(
        "<section class=\"verdict {class}\"><strong>{sign} {}</strong>{sentences}</section>\n",
        escape(&verdict::capital(&words.headline))
    )
}

fn cards(results: &Results) -> String {
    if !verdict::is_measured(results) {
        return String::new();
    }
    let card = |(name, label): &(&str, &str)| {
        let figure = Figure::named(name)?;
        let value = figure.text_of(results)?;
        Some(format!(
            "<li><b>{}</b><span>{}</span></li>",
            escape(&value),
            escape(label)
        ))
    };
    let cards: String = CARDS.iter().filter_map(card).collect();
    match cards.is_empty() {
        true => cards,
        false => format!("<ul class=\"cards\">{cards}</ul>\n"),
    }
}

/// A table under a heading; its first column names the rows, `words` of the others are text.
fn section(
    heading: &str,
    columns: &[&str],
    words: &[usize],
    rows: &[(bool, Vec<String>)],
) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let class = |column: usize| match column == 0 || words.contains(&column) {
        true => " class=\"word\"",
        false => "",
    };
    let mut html = format!(
        "<h2>{}</h2>\n<div class=\"scroll\"><table><thead><tr>",
        escape(heading)
    );
    let mut add = |part: std::fmt::Arguments<'_>| {
        html.write_fmt(part).expect("a string takes all");
    };
    for (column, name) in columns.iter().enumerate() {
        add(format_args!(
            "<th scope=\"col\"{}>{}</th>",
            class(column),
            escape(name)
        ));
    }
    add(format_args!("</tr></thead><tbody>\n"));
    for (is_knee, cells) in rows {
        add(format_args!(
            "<tr{}>",
            if *is_knee { " class=\"knee\"" } else { "" }
        ));
        for (column, cell) in cells.iter().enumerate() {
            let cell = escape(cell);
            match column {
                0 => add(format_args!("<th scope=\"row\">{cell}</th>")),
                _ => add(format_args!("<td{}>{cell}</td>", class(column))),
            }
        }
        add(format_args!("</tr>\n"));
    }
    add(format_args!("</tbody></table></div>\n"));
    html
}

fn steps(results: &Results) -> String {
    let columns = [
        "step",
        "load/s",
        "published",
        "refused",
        "deliveries",
        "deliveries/s",
        "CPU each",
        "wall each",
        "p50",
        "p99",
        "p99.9",
        "last p99",
        "lost",
        "disorder",
        "outcome",
    ];
    let rows: Vec<(bool, Vec<String>)> = results
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let is_knee = results.knee == Some(index);
            let mark =
                table::mark(results, index).map_or_else(String::new, |mark| format!(", {mark}"));
            let mut cells = vec![
                format!("{}. {}{mark}", index + 1, table::step_name(step.kind)),
                table::offered(step),
            ];
            match verdict::has_figures(results, step) {
                true => cells.extend(step_figures(step)),
                false => cells.extend(std::iter::repeat_n("–".to_owned(), columns.len() - 3)),
            }
            cells.push(match &step.outcome {
                Outcome::Kept => "kept".to_owned(),
                Outcome::Missed { why } => format!("missed: {why}"),
                Outcome::Invalid { why } => format!("invalid: {why}"),
            });
            (is_knee, cells)
        })
        .collect();
    section("Steps", &columns, &[columns.len() - 1], &rows)
}

fn step_figures(step: &Step) -> Vec<String> {
    let server = step.server.as_ref();
    let time = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), numbers::duration_us);
    let quantile =
        |series: Series, quantile| time(series.of(step).quantile_us(quantile).map(|us| us as f64));
    let disorder = step.disorder.kinds();
    let others: u64 = disorder.iter().skip(1).map(|(_, count)| count).sum();
    vec![
        numbers::count(step.published),
        numbers::count(step.refused),
        numbers::short(step.deliveries as f64),
        numbers::short(step.deliveries_per_s),
        time(server.map(|server| server.cpu_us_per_delivery)),
        time(server.map(|server| server.wall_us_per_delivery)),
        quantile(Series::Delivery, 0.5),
        quantile(Series::Delivery, 0.99),
        quantile(Series::Delivery, 0.999),
        quantile(Series::Last, 0.99),
        numbers::count(step.disorder.lost),
        numbers::count(others),
    ]
}

fn latencies(results: &Results) -> String {
    let Some(step) = results
        .steps_that_count()
        .last()
        .filter(|step| verdict::has_figures(results, step))
    else {
        return String::new();
    };
    let named = [
        ("first subscriber", Series::First),
        ("median subscriber", Series::Median),
        ("last subscriber", Series::Last),
        ("delivery", Series::Delivery),
        ("generator's slip", Series::Slip),
    ];
    let recorded = named
        .iter()
        .filter(|(_, series)| !series.of(step).is_empty());
    let rows: Vec<(bool, Vec<String>)> = recorded
        .map(|(name, series)| {
            let latencies = series.of(step);
            let mut cells = vec![(*name).to_owned()];
            let quantiles = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
            cells.extend(
                quantiles
                    .map(|quantile| numbers::duration_us_or_dash(latencies.quantile_us(quantile))),
            );
            cells.push(numbers::count(latencies.count()));
            (false, cells)
        })
        .collect();
    let columns = [
        "", "p50", "p90", "p99", "p99.9", "p99.99", "longest", "count",
    ];
    section("Latency", &columns, &[], &rows)
}

fn storms(results: &Results) -> String {
    if !verdict::is_measured(results) {
        return String::new();
    }
    let columns = [
        "storm",
        "connections",
        "failed",
        "handshakes/s",
        "all upgraded",
        "95 % subscribed",
        "all subscribed",
        "p50 of a client, from its SYN",
        "p99 of a client, from its SYN",
        "CPU/handshake",
        "generator busy",
        "server busy",
    ];
    let rows: Vec<(bool, Vec<String>)> = results
        .storms
        .iter()
        .map(|storm| {
            let cpu = storm.server_cpu_us_per_handshake;
            let time = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), numbers::duration_us);
            let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), numbers::share);
            let cells = vec![
                storm.kind.name().to_owned(),
                numbers::count(storm.connections),
                numbers::count(storm.failed),
                table::handshakes_per_s(storm),
                numbers::duration_us(storm.all_upgraded_ms * 1e3),
                time(storm.most_subscribed_ms.map(|ms| ms * 1e3)),
                numbers::duration_us(storm.all_subscribed_ms * 1e3),
                numbers::duration_us_or_dash(storm.latency.quantile_us(0.5)),
                numbers::duration_us_or_dash(storm.latency.quantile_us(0.99)),
                time(cpu),
                share(storm.generator_busy_share),
                share(storm.server_busy_share),
            ];
            (false, cells)
        })
        .collect();
    section("Connection storms", &columns, &[], &rows)
}

/// Slow readers and guests of the steps that count.
fn beside(results: &Results) -> String {
    let lines = table::beside(results);
    let lines: String = lines
        .lines()
        .map(|line| format!("<p>{}</p>", escape(line)))
        .collect();
    match lines.is_empty() {
        true => lines,
        false => format!("<h2>Beside the subscribers</h2>\n{lines}\n"),
    }
}

fn memory(results: &Results) -> String {
    let Some(memory) = results
        .memory
        .as_ref()
        .filter(|_| verdict::is_measured(results))
    else {
        return String::new();
    };
    let size = |bytes: Option<f64>| bytes.map_or_else(|| "–".to_owned(), numbers::bytes);
    let mut rows: Vec<(bool, Vec<String>)> = Vec::new();
    for reading in &memory.readings {
        let cells = vec![
            numbers::count(reading.connections),
            size(reading.server_rss_bytes.map(|bytes| bytes as f64)),
            size(Some(reading.generator_rss_bytes as f64)),
            size(reading.kernel_slab_bytes.map(|bytes| bytes as f64)),
        ];
        rows.push((false, cells));
    }
    let each = vec![
        "each".to_owned(),
        size(memory.server_bytes_per_connection),
        size(Some(memory.generator_bytes_per_connection)),
        size(memory.kernel_slab_bytes_per_connection),
    ];
    rows.push((true, each));
    let columns = [
        "connections",
        "server RSS",
        "generator RSS",
        "kernel slab, both ends",
    ];
    section("Memory", &columns, &[], &rows)
}

/// Of the step that counts: how near the generator came to its own end is part of the figures.
fn threads(results: &Results) -> String {
    let Some(step) = results.steps_that_count().last() else {
        return String::new();
    };
    let server = step
        .server
        .iter()
        .flat_map(|server| &server.shards)
        .map(|thread| ("server", thread));
    let generator = step.generator.iter().map(|thread| ("generator", thread));
    let rows: Vec<(bool, Vec<String>)> = server
        .chain(generator)
        .map(|(whose, thread)| {
            let core = thread
                .core
                .map_or_else(|| "–".to_owned(), |core| core.to_string());
            let cells = vec![
                thread.name.clone(),
                whose.to_owned(),
                core,
                numbers::share(thread.busy_share),
            ];
            (false, cells)
        })
        .collect();
    section("Threads", &["thread", "of", "core", "busy"], &[1], &rows)
}

fn facts(results: &Results) -> String {
    let facts: String = table::named_facts(results)
        .into_iter()
        .map(|(name, fact)| match name {
            "command" => format!("<dt>{name}</dt><dd><code>{}</code></dd>", escape(&fact)),
            _ => format!("<dt>{name}</dt><dd>{}</dd>", escape(&fact)),
        })
        .collect();
    format!("<h2>How it was measured</h2>\n<dl>{facts}</dl>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::{Latencies, Verdict, samples};

    /// The marked or joined points of a series in the chart of this id.
    fn points(page: &str, chart: &str, series: &str) -> usize {
        let at = page
            .find(&format!("id=\"{chart}\""))
            .expect("the chart is there");
        let figure = &page[at..at + page[at..].find("</figure>").expect("a figure ends")];
        let at = figure
            .find(&format!("data-name=\"{series}\""))
            .expect("the series is there");
        let group = &figure[at..at + figure[at..].find("</g>").expect("a group ends")];
        match group.split_once("class=\"line\" d=\"M") {
            Some((_, path)) => path
                .split('"')
                .next()
                .map_or(0, |path| path.matches(['M', 'L']).count() + 1),
            None => group.matches("<circle").count() + group.matches("<path").count(),
        }
    }

    #[test]
    fn a_page_draws_each_point_of_the_result() {
        let results = samples::fanout();
        let page = page(&results);
        let seconds: usize = results.steps.iter().map(|step| step.timeline.len()).sum();
        for (chart, series) in [
            ("throughput", "delivered"),
            ("throughput", "due"),
            ("lag", "behind"),
            ("latency-time", "p50"),
            ("latency-time", "p99"),
            ("cores", "core 0 (server)"),
            ("cores", "core 1 (generator)"),
        ] {
            assert_eq!(points(&page, chart, series), seconds, "{chart} {series}");
        }
        assert_eq!(points(&page, "loads", "kept"), 6);
        assert_eq!(points(&page, "loads", "missed"), 2);
        assert_eq!(points(&page, "loads", "knee"), 1);
        let quantiles = results.steps[7]
            .latency
            .first
            .values()
            .iter_quantiles(5)
            .count();
        assert_eq!(points(&page, "latency", "first subscriber"), quantiles);
    }

    #[test]
    fn a_page_holds_all_that_it_needs() {
        for results in [samples::fanout(), samples::connect(), samples::idle()] {
            let page = page(&results);
            for outside in ["http://", "https://", "src=", "@import", "url("] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert!(page.contains("default-src 'none'"));
            assert!(page.contains("the receiver&#39;s TCP work runs inside the sender&#39;s call"));
            assert_eq!(
                page.matches("<figure").count(),
                page.matches("</figure>").count()
            );
        }
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let mut results = samples::fanout();
        for step in &mut results.steps {
            step.latency = Latencies::default();
            step.timeline.clear();
            step.server = None;
        }
        let empty = page(&results);
        assert!(!empty.contains("<figure") && !empty.contains("NaN") && !empty.contains("inf "));
        let mut results = samples::fanout();
        results.verdict = Verdict::Invalid {
            why: vec!["core 1 was busy for 97 %".to_owned()],
        };
        let invalid = page(&results);
        assert!(invalid.contains("Invalid: generator saturated"));
        assert!(!invalid.contains("<figure") && !invalid.contains("76.4 ms"));
    }

    #[test]
    fn what_the_generator_bounds_is_a_lower_bound_in_table_card_and_words() {
        let page_of_storms = page(&samples::connect_at_the_limit());
        assert_eq!(page_of_storms.matches("<td>≥ 15,267</td>").count(), 1);
        assert!(page_of_storms.contains("at least 15,267 handshakes a second"));
        // The card is of the worst storm, which the server set the pace of.
        assert!(page_of_storms.contains("<b>12.3 k</b><span>handshakes a second</span>"));
        let mut results = samples::connect_at_the_limit();
        results.storms.remove(0);
        let page_of_one = page(&results);
        assert!(page_of_one.contains("<b>≥ 15.3 k</b><span>handshakes a second</span>"));
        assert!(page_of_one.contains("<b>≤ 655 ms</b><span>until all were subscribed</span>"));
        let mut results = samples::fanout();
        results.knee_is_lower_bound = true;
        let page_of_knee = page(&results);
        assert!(page_of_knee.contains("8. confirm, knee at least</th>"));
        assert!(page_of_knee.contains("<b>≥ 11.9 M</b><span>deliveries a second</span>"));
    }

    #[test]
    fn names_are_text_whatever_they_hold() {
        let mut results = samples::fanout();
        results.target.name = "<script>alert('x')</script>".to_owned();
        results.steps[7].generator[0].name = "\"<b>".to_owned();
        let page = page(&results);
        assert!(!page.contains("<script>alert") && !page.contains("\"<b>"));
    }

    #[test]
    fn many_cores_are_a_map_with_a_cell_for_each_second() {
        let mut results = samples::fanout();
        let cores = results.cores.clone();
        results.cores = cores.iter().cycle().take(16).cloned().collect();
        let page = page(&results);
        let seconds: usize = results.steps.iter().map(|step| step.timeline.len()).sum();
        assert_eq!(page.matches("class=\"cell\"").count(), 16 * seconds);
    }
}
