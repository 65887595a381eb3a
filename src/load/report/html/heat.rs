//! How busy many cores were over time: a row for each core, darker where it was busier. Lines would hide each other.

use std::fmt::Write;

use crate::load::report::{numbers, verdict};
use crate::load::result::{Results, Role, Second};

use super::escape;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 50.0;
/// All rows together, and one of them at least.
const ROWS_HEIGHT: f64 = 230.0;
const ROW_HEIGHT_MIN: f64 = 5.0;
/// Rows with a name have so much room for it.
const NAME_HEIGHT: f64 = 15.0;
const TIME_LABELS: usize = 6;

/// Nothing where nothing was watched.
pub fn draw(results: &Results) -> String {
    let steps = results
        .steps
        .iter()
        .filter(|step| verdict::has_figures(results, step));
    let seconds: Vec<&Second> = steps.flat_map(|step| step.timeline.iter()).collect();
    if seconds.is_empty() {
        return String::new();
    }
    let row_height = (ROWS_HEIGHT / results.cores.len() as f64).max(ROW_HEIGHT_MIN);
    let bottom = TOP + row_height * results.cores.len() as f64;
    let column_width = (WIDTH - LEFT - RIGHT) / seconds.len() as f64;
    let mut svg = String::new();
    let mut add = |part: std::fmt::Arguments<'_>| {
        svg.write_fmt(part).expect("a string takes all");
    };
    add(format_args!(
        "<figure class=\"chart\" id=\"cores\"><figcaption>CPU by core over time</figcaption>\
         <ul class=\"legend\"><li>{}</li></ul>\n\
         <svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"cores-title\">\
         <title id=\"cores-title\">How busy each core was, second by second</title>\n",
        escape(
            "blue: the server's cores, orange: the generator's; the fuller the colour, the busier"
        ),
        bottom + BOTTOM
    ));
    let named_every = (NAME_HEIGHT / row_height).ceil().max(1.0) as usize;
    for (row, core) in results.cores.iter().enumerate() {
        let top = TOP + row as f64 * row_height;
        let colour = match core.role {
            Role::Server => 0,
            Role::Generator => 1,
            Role::Shared => 2,
            Role::Other => 3,
        };
        if row % named_every == 0 {
            add(format_args!(
                "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">core {}</text>",
                LEFT - 8.0,
                top + row_height / 2.0 + 4.0,
                core.number
            ));
        }
        add(format_args!("<g class=\"s{colour}\">"));
        for (column, second) in seconds.iter().enumerate() {
            let busy = second
                .core_busy_shares
                .get(row)
                .copied()
                .unwrap_or(0.0)
                .clamp(0.0, 1.0);
            add(format_args!(
                "<rect class=\"cell\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{column_width:.2}\" height=\"{:.2}\" \
                 fill-opacity=\"{busy:.2}\"><title>core {} ({}), {:.0} s: {}</title></rect>",
                LEFT + column as f64 * column_width,
                row_height - 0.5,
                core.number,
                core.role.name(),
                second.at_s,
                numbers::share(busy)
            ));
        }
        add(format_args!("</g>\n"));
    }
    let every = seconds.len().div_ceil(TIME_LABELS);
    for (column, second) in seconds.iter().enumerate().step_by(every) {
        add(format_args!(
            "<text class=\"tick middle\" x=\"{:.1}\" y=\"{}\">{:.0} s</text>",
            LEFT + (column as f64 + 0.5) * column_width,
            bottom + 18.0,
            second.at_s
        ));
    }
    add(format_args!(
        "<text class=\"name middle\" x=\"{:.1}\" y=\"{}\">since the run began</text></svg></figure>\n",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        bottom + 42.0
    ));
    svg
}
