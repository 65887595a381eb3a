//! One chart as inline SVG: axes, series, bands of time, and beside it the data that hovering shows.
//!
//! Colours and dashes are classes of the page's style (`s0` to `s5`), so that one drawing serves a light page and a
//! dark one. Lines differ by dash too: colour alone tells nobody apart who does not see it.

use std::fmt::Write;

use serde::Serialize;

use super::escape;

/// A chart that can be drawn. Values that are not finite are left out.
pub struct Chart {
    /// Unique within the page; a word.
    pub id: &'static str,
    pub title: String,
    /// What it shows, for those who do not see it.
    pub description: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Behind the series: the steps of a run.
    pub bands: Vec<Band>,
    /// A line is broken where neighbours are further apart than this along x.
    pub gap: f64,
    /// A line across the plot at a value of y, with its name.
    pub limit: Option<(f64, String)>,
}

pub struct Axis {
    pub label: String,
    pub scale: Scale,
    /// How a value is written, beside the axis and when hovered.
    pub text: fn(f64) -> String,
    /// Positions and names that are given; none: round numbers.
    pub ticks: Option<Vec<(f64, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From zero to the highest value.
    Zero,
    /// From the lowest to the highest value.
    Fit,
    /// As far as the values go, in powers of ten; values above zero only.
    Log,
    Between(f64, f64),
}

pub struct Series {
    pub name: String,
    /// Which of the page's colours, 0 to 5.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    pub mark: Mark,
    /// What hovering shows for a point instead of its value; empty: its value.
    pub words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Line,
    Dots,
    Crosses,
    Rings,
}

pub struct Band {
    pub from: f64,
    pub to: f64,
    pub label: String,
    pub is_marked: bool,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 50.0;
/// A line of so few points shows each of them.
const DOTTED_MAX: usize = 40;
/// A character of the labels' font, at most.
const CHARACTER: f64 = 7.8;

/// What hovering needs: where each point is in the drawing, and what to say.
#[derive(Serialize)]
struct Hover<'a> {
    name: &'a str,
    colour: usize,
    points: Vec<(f64, f64, String, String)>,
}

impl Chart {
    /// Nothing where there is no point to draw.
    pub fn draw(&self) -> String {
        let Some(plot) = Plot::of(self) else {
            return String::new();
        };
        let mut svg = String::new();
        let mut add = |part: std::fmt::Arguments<'_>| {
            svg.write_fmt(part).expect("a string takes all");
        };
        let id = self.id;
        add(format_args!(
            "<figure class=\"chart\" id=\"{id}\"><figcaption>{} <span>{}</span></figcaption>{}\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" tabindex=\"0\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>\n",
            escape(&self.title),
            escape(&self.y.label),
            self.legend(),
            escape(&self.title),
            escape(&self.description),
        ));
        add(format_args!("{}", plot.bands(self)));
        add(format_args!("{}", plot.axes(self)));
        if let Some((at, name)) = &self.limit {
            add(format_args!("{}", plot.limit(*at, name)));
        }
        for series in &self.series {
            add(format_args!("{}", plot.series(self, series)));
        }
        add(format_args!(
            "<g class=\"hover\" visibility=\"hidden\"><line y1=\"{TOP}\" y2=\"{}\"/></g></svg>\n\
             <output class=\"tip\" hidden></output>\n\
             <script type=\"application/json\">{}</script></figure>\n",
            HEIGHT - BOTTOM,
            plot.hover(self),
        ));
        svg
    }

    /// One series needs no legend: the title names it.
    fn legend(&self) -> String {
        let drawn: Vec<&Series> = self
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
            .collect();
        if drawn.len() < 2 {
            return String::new();
        }
        let mut legend = String::from("<ul class=\"legend\">");
        for series in drawn {
            let swatch = match series.mark {
                Mark::Line => "<path class=\"line\" d=\"M1 6H25\"/>".to_owned(),
                Mark::Dots | Mark::Crosses => mark(series.mark, 13.0, 6.0),
                Mark::Rings => "<circle class=\"ring\" cx=\"13\" cy=\"6\" r=\"5\"/>".to_owned(),
            };
            write!(
                legend,
                "<li><svg class=\"s{}\" viewBox=\"0 0 26 12\" width=\"26\" height=\"12\" aria-hidden=\"true\">{swatch}</svg>{}</li>",
                series.colour,
                escape(&series.name)
            )
            .expect("a string takes all");
        }
        legend.push_str("</ul>");
        legend
    }
}

/// Where values lie in the drawing.
struct Plot {
    x: Range,
    y: Range,
}

impl Plot {
    fn of(chart: &Chart) -> Option<Plot> {
        let points = || chart.series.iter().flat_map(|series| series.points.iter());
        let ends = chart.bands.iter().flat_map(|band| [band.from, band.to]);
        let limit = chart.limit.iter().map(|(at, _)| *at);
        // A chart has bands and a limit only around its points.
        points().next()?;
        Some(Plot {
            x: Range::of(chart.x.scale, points().map(|point| point.0).chain(ends))?,
            y: Range::of(chart.y.scale, points().map(|point| point.1).chain(limit))?,
        })
    }

    fn left_of(&self, x: f64) -> f64 {
        LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT)
    }

    fn top_of(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn bands(&self, chart: &Chart) -> String {
        let mut svg = String::new();
        for (index, band) in chart.bands.iter().enumerate() {
            let (from, to) = (self.left_of(band.from), self.left_of(band.to));
            let class = match (band.is_marked, index % 2) {
                (true, _) => "band marked",
                (false, 0) => "band",
                (false, _) => "band odd",
            };
            let width = (to - from).max(0.0);
            write!(
                svg,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\"/>",
                HEIGHT - TOP - BOTTOM
            )
            .expect("a string takes all");
            if band.label.chars().count() as f64 * CHARACTER < width {
                let middle = f64::midpoint(from, to);
                write!(
                    svg,
                    "<text class=\"tick middle\" x=\"{middle:.1}\" y=\"{}\">{}</text>",
                    TOP - 8.0,
                    escape(&band.label)
                )
                .expect("a string takes all");
            }
        }
        svg
    }

    fn axes(&self, chart: &Chart) -> String {
        let mut svg = String::new();
        let mut add = |part: std::fmt::Arguments<'_>| {
            svg.write_fmt(part).expect("a string takes all");
        };
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (at, text) in self.y.ticks(&chart.y) {
            let top = self.top_of(at);
            add(format_args!(
                "<path class=\"grid\" d=\"M{LEFT} {top:.1}H{right}\"/>\
                 <text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                top + 4.0,
                escape(&text)
            ));
        }
        // A label that would run into the one before it is left out.
        let mut free_from = 0.0;
        for (at, text) in self.x.ticks(&chart.x) {
            let left = self.left_of(at);
            let half = text.chars().count() as f64 * CHARACTER / 2.0;
            let is_inside = left + half < WIDTH && left - half >= free_from;
            add(format_args!(
                "<path class=\"grid x\" d=\"M{left:.1} {TOP}V{bottom}\"/>"
            ));
            if is_inside {
                free_from = left + half + CHARACTER;
                add(format_args!(
                    "<text class=\"tick middle\" x=\"{left:.1}\" y=\"{}\">{}</text>",
                    bottom + 18.0,
                    escape(&text)
                ));
            }
        }
        add(format_args!(
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
             <text class=\"name middle\" x=\"{:.1}\" y=\"{}\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escape(&chart.x.label)
        ));
        svg
    }

    fn limit(&self, at: f64, name: &str) -> String {
        let top = self.top_of(at);
        format!(
            "<path class=\"limit\" d=\"M{LEFT} {top:.1}H{}\"/><text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT - 4.0,
            top - 6.0,
            escape(name)
        )
    }

    fn series(&self, chart: &Chart, series: &Series) -> String {
        let mut marks = String::new();
        let mut path = String::new();
        let mut before = None;
        let kind = match series.mark {
            Mark::Line => Mark::Dots,
            other @ (Mark::Dots | Mark::Crosses | Mark::Rings) => other,
        };
        let is_marked = series.mark != Mark::Line || series.points.len() <= DOTTED_MAX;
        for (x, y) in &series.points {
            let (left, top) = (self.left_of(*x), self.top_of(*y));
            let is_broken = before.is_none_or(|before| x - before > chart.gap);
            let pen = if is_broken { 'M' } else { 'L' };
            write!(path, "{pen}{left:.1} {top:.1}").expect("a string takes all");
            before = Some(*x);
            if is_marked {
                marks.push_str(&mark(kind, left, top));
            }
        }
        let line = match series.mark {
            Mark::Line => format!("<path class=\"line\" d=\"{path}\"/>"),
            Mark::Dots | Mark::Crosses | Mark::Rings => String::new(),
        };
        let small = if series.mark == Mark::Line {
            " small"
        } else {
            ""
        };
        format!(
            "<g class=\"series s{}{small}\" data-name=\"{}\">{line}{marks}</g>\n",
            series.colour,
            escape(&series.name)
        )
    }

    fn hover(&self, chart: &Chart) -> String {
        let series: Vec<Hover<'_>> = chart
            .series
            .iter()
            .map(|series| Hover {
                name: &series.name,
                colour: series.colour,
                points: series
                    .points
                    .iter()
                    .enumerate()
                    .map(|(index, (x, y))| {
                        let words = series.words.get(index).cloned();
                        let words = words.unwrap_or_else(|| (chart.y.text)(*y));
                        (
                            tenth(self.left_of(*x)),
                            tenth(self.top_of(*y)),
                            (chart.x.text)(*x),
                            words,
                        )
                    })
                    .collect(),
            })
            .collect();
        let json = serde_json::to_string(&series).expect("numbers and text are JSON");
        // Nothing inside a script may look like its end.
        json.replace('<', "\\u003c")
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn mark(mark: Mark, left: f64, top: f64) -> String {
    match mark {
        Mark::Line => String::new(),
        Mark::Dots => format!("<circle class=\"dot\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"4\"/>"),
        Mark::Rings => format!("<circle class=\"ring\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"8\"/>"),
        Mark::Crosses => format!(
            "<path class=\"cross\" d=\"M{:.1} {:.1}l9 9m0-9l-9 9\"/>",
            left - 4.5,
            top - 4.5
        ),
    }
}

/// The values that an axis spans.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Range> {
        let values = values.filter(|value| value.is_finite());
        let values = values.filter(|value| scale != Scale::Log || *value > 0.0);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return None;
        }
        let (low, high, is_log) = match scale {
            Scale::Zero => (0.0, high * 1.05, false),
            Scale::Fit => (low, high, false),
            Scale::Log => (round_below(low), round_above(high), true),
            Scale::Between(low, high) => (low, high, false),
        };
        // One value alone still needs a place.
        let high = if high > low { high } else { low + 1.0 };
        Some(Range { low, high, is_log })
    }

    fn share(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(&self, axis: &Axis) -> Vec<(f64, String)> {
        if let Some(ticks) = &axis.ticks {
            let inside = ticks
                .iter()
                .filter(|(at, _)| (self.low..=self.high).contains(at));
            return inside.cloned().collect();
        }
        let at = match self.is_log {
            true => self.powers(),
            false => self.round_numbers(),
        };
        let mut ticks: Vec<(f64, String)> = at
            .into_iter()
            .map(|at| (at, trimmed(&(axis.text)(at))))
            .collect();
        // Ticks that are nearer to each other than their text can say.
        ticks.dedup_by(|later, earlier| later.1 == earlier.1);
        ticks
    }

    /// Some five round numbers.
    fn round_numbers(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * magnitude);
        let step = step
            .clone()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    /// Powers of ten, with 2 and 5 between them where there is room.
    fn powers(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let factors: &[f64] = match decades {
            _ if decades < 2.2 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = (decades / 7.0).ceil().max(1.0) as usize;
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let powers = (first..=last).step_by(every);
        let all = powers.flat_map(|power| {
            factors
                .iter()
                .map(move |factor| factor * 10_f64.powi(power))
        });
        all.filter(|at| (self.low..=self.high).contains(at))
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, below a value, so that an axis begins and ends with a tick however near its values
/// are to each other.
fn round_below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [5.0, 2.0, 1.0].into_iter();
    let below = factors
        .map(|factor| factor * power)
        .find(|round| *round < value);
    below.unwrap_or(power / 2.0)
}

fn round_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [2.0, 5.0, 10.0].into_iter();
    let above = factors
        .map(|factor| factor * power)
        .find(|round| *round > value);
    above.unwrap_or(power * 20.0)
}

/// `20.0 ms` as `20 ms`: beside an axis the zeros say nothing.
fn trimmed(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    match unit.is_empty() {
        true => number.to_owned(),
        false => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(scale: Scale) -> Axis {
        Axis {
            label: "x".to_owned(),
            scale,
            text: |value| format!("{value:.3}"),
            ticks: None,
        }
    }

    proptest! {
        #[test]
        fn every_value_has_a_place_and_axes_have_few_ticks(
            values in prop::collection::vec(0.0f64..1e12, 1..20),
            scale in prop::sample::select(vec![Scale::Zero, Scale::Fit, Scale::Log]),
        ) {
            let Some(range) = Range::of(scale, values.iter().copied()) else {
                prop_assert!(scale == Scale::Log && values.iter().all(|value| *value == 0.0));
                return Ok(());
            };
            for value in values {
                prop_assert!((0.0..=1.0).contains(&range.share(value)));
            }
            let ticks = range.ticks(&axis(scale));
            prop_assert!(ticks.len() <= 12, "{ticks:?}");
            prop_assert!(ticks.windows(2).all(|pair| pair[0].0 < pair[1].0), "{ticks:?}");
        }
    }

    #[test]
    fn ticks_are_round() {
        let texts = |scale, values: &[f64]| -> Vec<String> {
            let range = Range::of(scale, values.iter().copied()).unwrap();
            range
                .ticks(&axis(scale))
                .into_iter()
                .map(|(_, text)| text)
                .collect()
        };
        assert_eq!(texts(Scale::Zero, &[97.0]), ["0", "50", "100"]);
        assert_eq!(texts(Scale::Zero, &[12.3]), ["0", "5", "10"]);
        assert_eq!(
            texts(Scale::Log, &[1.1, 49.0]),
            ["1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(texts(Scale::Log, &[28.0, 30.0]), ["20", "50"]);
        assert_eq!(texts(Scale::Log, &[10.0]), ["5", "10", "20"]);
        assert_eq!(texts(Scale::Log, &[1.1, 999.0]), ["1", "10", "100", "1000"]);
        let mut seconds = axis(Scale::Fit);
        seconds.text = |seconds| format!("{seconds:.0} s");
        let range = Range::of(Scale::Fit, [2.3, 3.4].into_iter()).unwrap();
        let texts = range.ticks(&seconds).into_iter().map(|(_, text)| text);
        assert_eq!(texts.collect::<Vec<_>>(), ["2 s", "3 s"]);
    }

    #[test]
    fn a_chart_without_points_is_not_drawn() {
        let mut chart = Chart {
            id: "empty",
            title: "Empty & \"quoted\"".to_owned(),
            description: String::new(),
            x: axis(Scale::Fit),
            y: axis(Scale::Zero),
            series: Vec::new(),
            bands: vec![Band {
                from: 0.0,
                to: 1.0,
                label: String::new(),
                is_marked: false,
            }],
            gap: 1.5,
            limit: None,
        };
        assert_eq!(chart.draw(), "");
        chart.series.push(Series {
            name: "</script>".to_owned(),
            colour: 0,
            points: vec![(0.0, 1.0), (1.0, 2.0), (5.0, 0.0)],
            mark: Mark::Line,
            words: Vec::new(),
        });
        let svg = chart.draw();
        // Broken where the gap is, each point marked, and no text that leaves its place.
        assert_eq!(
            svg.matches('M').count() - svg.matches("d=\"M").count(),
            1,
            "{svg}"
        );
        assert_eq!(svg.matches("class=\"dot\"").count(), 3);
        assert_eq!(svg.matches("</script>").count(), 1);
        assert!(svg.contains("Empty &amp; &quot;quoted&quot;"));
    }
}
