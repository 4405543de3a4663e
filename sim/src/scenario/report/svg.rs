//! Line charts as SVG, written by hand: axes, ticks, lines, a legend. Colours are classes that the
//! page's style sheet fills in, so that a chart follows the reader's light or dark theme.

use std::fmt::Write as _;

use super::html::escape;

/// In user units; the page scales them to its width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Colours of the style sheet; lines beyond them repeat the first ones.
const COLOURS: usize = 8;
/// Points of a line; more are thinned out, which nobody sees at this width.
const POINTS_MAX: usize = 1_000;

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

/// A chart.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// As a figure of a page.
    pub(super) fn figure(&self) -> String {
        let mut out = String::new();
        let mut put = |text: String| out.push_str(&text);
        put(format!("<figure><h3>{}</h3>", escape(&self.title)));
        put(format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        ));
        let (x, y) = (self.x_axis(), self.y_axis());
        put(self.axes(&x, &y));
        for (at, line) in self.lines.iter().enumerate() {
            put(draw(line, at % COLOURS, &x, &y));
        }
        put("</svg><figcaption>".to_owned());
        for (at, line) in self.lines.iter().enumerate() {
            let dash = if line.dashed { " dashed" } else { "" };
            put(format!(
                "<span class=\"key\"><i class=\"c{}{dash}\"></i>{}</span>",
                at % COLOURS,
                escape(&line.name)
            ));
        }
        put("</figcaption></figure>\n".to_owned());
        out
    }

    fn x_axis(&self) -> Axis {
        let values = self.lines.iter().flat_map(|line| &line.points);
        Axis::new(values.map(|(x, _)| *x), LEFT, WIDTH - RIGHT, false)
    }

    fn y_axis(&self) -> Axis {
        let values = self.lines.iter().flat_map(|line| &line.points);
        Axis::new(values.map(|(_, y)| *y), HEIGHT - BOTTOM, TOP, true)
    }

    fn axes(&self, x: &Axis, y: &Axis) -> String {
        let (floor, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let mut out = String::new();
        for tick in y.ticks() {
            let at = y.place(tick);
            write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                y.label(tick)
            )
            .expect("a string takes everything");
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            write!(
                out,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                floor + 16.0,
                x.label(tick)
            )
            .expect("a string takes everything");
        }
        write!(
            out,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            escape(&self.x_label),
            (TOP + floor) / 2.0,
            escape(&self.y_label)
        )
        .expect("a string takes everything");
        out
    }
}

fn draw(line: &Line, colour: usize, x: &Axis, y: &Axis) -> String {
    let step = line.points.len().div_ceil(POINTS_MAX).max(1);
    let points: Vec<String> = line
        .points
        .iter()
        .step_by(step)
        .map(|(at, value)| format!("{:.1},{:.1}", x.place(*at), y.place(*value)))
        .collect();
    let dash = if line.dashed { " dashed" } else { "" };
    let name = escape(&line.name);
    let points = points.join(" ");
    format!(
        "<polyline class=\"c{colour}{dash}\" points=\"{points}\"><title>{name}</title></polyline>"
    )
}

/// From values to places.
#[derive(Debug)]
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64, from_zero: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if from_zero || !low.is_finite() {
            low = 0.0;
        }
        if !high.is_finite() || high <= low {
            high = low + 1.0;
        }
        let step = step(high - low);
        if from_zero {
            high = (high / step).ceil() * step;
        }
        Self {
            low,
            high,
            step,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step).ceil();
        let last = (self.high / self.step + 1e-9).floor();
        let mut next = first;
        std::iter::from_fn(move || {
            let tick = (next <= last).then_some(next * self.step);
            next += 1.0;
            tick
        })
    }

    /// With as many digits as ticks differ by.
    fn label(&self, tick: f64) -> String {
        match self.step {
            step if step >= 1.0 => format!("{tick:.0}"),
            step if step >= 0.1 => format!("{tick:.1}"),
            step if step >= 0.01 => format!("{tick:.2}"),
            _ => format!("{tick:.3}"),
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that there are about five of them.
fn step(span: f64) -> f64 {
    let raw = span / 5.0;
    let power = 10_f64.powf(raw.log10().floor());
    match raw / power {
        factor if factor <= 1.0 => power,
        factor if factor <= 2.0 => 2.0 * power,
        factor if factor <= 5.0 => 5.0 * power,
        _ => 10.0 * power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        Chart {
            title: "a < b".to_owned(),
            x_label: "hours".to_owned(),
            y_label: "share".to_owned(),
            lines: vec![Line {
                name: "web".to_owned(),
                points,
                dashed: false,
            }],
        }
        .figure()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let ticks = |high: f64| {
            let axis = Axis::new([0.0, high].into_iter(), 0.0, 100.0, true);
            axis.ticks()
                .map(|tick| axis.label(tick))
                .collect::<Vec<_>>()
        };
        assert_eq!(ticks(1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ticks(43.0), ["0", "10", "20", "30", "40", "50"]);
    }

    #[test]
    fn a_chart_is_drawn_whatever_the_points_are() {
        let drawn = chart(vec![(0.0, 0.0), (1.0, 0.5)]);
        assert!(
            drawn.contains("points=\"64.0,220.0 704.0,12.0\""),
            "{drawn}"
        );
        assert!(drawn.contains("a &lt; b"));
        for points in [vec![], vec![(3.0, 3.0)], vec![(0.0, 0.0), (1.0, 0.0)]] {
            assert!(!chart(points).contains("NaN"));
        }
    }
}
