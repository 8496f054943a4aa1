//! Charts as SVG, by hand: panels of lines, and rows of dots.

use std::fmt::Write;

use crate::figures::trimmed;

/// One system's look in every chart: named once, told apart by more than color.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    pub name: &'static str,
    pub color: &'static str,
    pub dashes: &'static str,
}

/// A point of a line.
#[derive(Clone, Copy)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Shown hollow.
    pub is_noisy: bool,
}

/// Points in one panel that belong together.
pub struct Series {
    pub style: Style,
    pub points: Vec<Point>,
}

/// Lines over one pair of axes. Both are logarithmic: equal ratios are equal distances.
pub struct Panel {
    pub title: String,
    pub x_label: &'static str,
    /// Written below the axis at these places; they are where points are.
    pub x_ticks: Vec<(f64, String)>,
    pub y_show: fn(f64) -> String,
    pub series: Vec<Series>,
}

/// A row of dots, one for each event.
pub struct Dots {
    pub style: Style,
    pub places: Vec<f64>,
    pub note: String,
}

const BACKGROUND: &str = "#ffffff";
const INK: &str = "#1f2328";
const FAINT_INK: &str = "#59636e";
const GRID: &str = "#e4e8ec";
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";

const PANEL_WIDTH: f64 = 420.0;
const PANEL_HEIGHT: f64 = 300.0;
/// A panel that is alone may be wider.
const WIDE_PANEL_WIDTH: f64 = 720.0;
/// Title and legend of the whole.
const HEAD_HEIGHT: f64 = 64.0;
const FOOT_HEIGHT: f64 = 8.0;
/// Around the plotted area of a panel.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// Panels below one title, two beside each other.
pub fn panels(title: &str, panels: &[Panel]) -> String {
    let columns = panels.len().clamp(1, 2);
    let panel_width = if columns == 1 { WIDE_PANEL_WIDTH } else { PANEL_WIDTH };
    let rows = panels.len().div_ceil(columns).max(1);
    let height = HEAD_HEIGHT + rows as f64 * PANEL_HEIGHT + FOOT_HEIGHT;
    let width = columns as f64 * panel_width;
    let mut svg = head(width, height, title, &styles(panels));
    let mut points = panels.iter().flat_map(|panel| &panel.series).flat_map(|one| &one.points);
    if points.any(|point| point.is_noisy) {
        text(&mut svg, (width - RIGHT, 52.0), "end", FAINT_INK, "hollow: others used the machine");
    }
    for (n, panel) in panels.iter().enumerate() {
        let x = (n % columns) as f64 * panel_width;
        let y = HEAD_HEIGHT + (n / columns) as f64 * PANEL_HEIGHT;
        let _ = write!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
        one_panel(&mut svg, panel, panel_width);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

/// The styles of all panels, each once.
fn styles(panels: &[Panel]) -> Vec<Style> {
    let mut styles: Vec<Style> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !styles.contains(&series.style) {
            styles.push(series.style);
        }
    }
    styles
}

fn head(width: f64, height: f64, title: &str, legend: &[Style]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"{FONT}\" font-size=\"12\">\n\
         <title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{BACKGROUND}\"/>\n\
         <text x=\"18\" y=\"27\" font-size=\"16\" font-weight=\"600\" fill=\"{INK}\">{0}</text>\n",
        escaped(title)
    );
    let mut x = 18.0;
    for style in legend {
        let Style { name, color, dashes } = style;
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"48\" y2=\"48\" stroke=\"{color}\" \
             stroke-width=\"2.5\" stroke-dasharray=\"{dashes}\"/>\
             <circle cx=\"{:.0}\" cy=\"48\" r=\"3.5\" fill=\"{color}\"/>",
            x + 26.0,
            x + 13.0,
        );
        text(&mut svg, (x + 33.0, 52.0), "start", INK, name);
        x += 60.0 + 7.0 * name.len() as f64;
    }
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn grid_line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{GRID}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// A logarithmic axis: from which value to which, drawn from where to where.
#[derive(Clone, Copy)]
struct Axis {
    values: (f64, f64),
    places: (f64, f64),
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.values.0.ln(), self.values.1.ln());
        let share = if high > low { (value.ln() - low) / (high - low) } else { 0.5 };
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

fn one_panel(svg: &mut String, panel: &Panel, width: f64) {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let (left, right) = (LEFT, width - RIGHT);
    let (top, bottom) = (TOP, PANEL_HEIGHT - BOTTOM);
    let title = escaped(&panel.title);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"18\" font-weight=\"600\" fill=\"{INK}\">{title}</text>"
    );
    let ticks = y_ticks(points().map(|point| point.y));
    let first_and_last = |values: &[f64]| {
        let (first, last) = (values.first().copied(), values.last().copied());
        (first.unwrap_or(1.0), last.unwrap_or(10.0))
    };
    let y = Axis { values: first_and_last(&ticks), places: (bottom, top) };
    for tick in &ticks {
        let at = y.at(*tick);
        grid_line(svg, (left, at), (right, at));
        let name = trimmed(&(panel.y_show)(*tick));
        text(svg, (left - 8.0, at + 4.0), "end", FAINT_INK, &name);
    }
    let xs: Vec<f64> = panel.x_ticks.iter().map(|(x, _)| *x).collect();
    let x = Axis { values: first_and_last(&xs), places: (left + 20.0, right - 20.0) };
    for (tick, name) in &panel.x_ticks {
        let at = x.at(*tick);
        grid_line(svg, (at, bottom), (at, bottom + 5.0));
        text(svg, (at, bottom + 19.0), "middle", FAINT_INK, name);
    }
    text(svg, ((left + right) / 2.0, bottom + 38.0), "middle", FAINT_INK, panel.x_label);
    for series in &panel.series {
        line(svg, series, x, y, panel.y_show);
    }
}

fn line(svg: &mut String, series: &Series, x: Axis, y: Axis, show: fn(f64) -> String) {
    let Style { name, color, dashes } = series.style;
    let places: Vec<(f64, f64)> =
        series.points.iter().map(|point| (x.at(point.x), y.at(point.y))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\" \
         stroke-linejoin=\"round\" stroke-dasharray=\"{dashes}\"/>",
        path.join(" ")
    );
    for ((x, y), point) in places.iter().zip(&series.points) {
        let told = escaped(&format!("{name}: {}", show(point.y)));
        let fill = if point.is_noisy { BACKGROUND } else { color };
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{color}\" \
             stroke-width=\"1.5\"><title>{told}</title></circle>"
        );
    }
}

/// Powers of ten around all values; with twos and fives between, if there are few.
fn y_ticks(values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let is_sound = |value: &f64| value.is_finite() && *value > 0.0;
    let low = values.clone().filter(is_sound).fold(f64::INFINITY, f64::min);
    let high = values.filter(is_sound).fold(0.0, f64::max);
    if high == 0.0 {
        return vec![1.0, 10.0];
    }
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let few = high / low < 150.0;
    let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all: Vec<f64> = decades
        .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
        .collect();
    let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1);
    all[first..=last.max((first + 1).min(all.len() - 1))].to_vec()
}

const DOTS_WIDTH: f64 = 720.0;
const DOTS_HEIGHT: f64 = 92.0;
/// Room for the names of rows.
const DOTS_LEFT: f64 = 140.0;
const DOTS_TOP: f64 = 44.0;
/// A dot, and the distance of two that would cover each other.
const DOT_RADIUS: f64 = 4.0;
const DOT_STEP: f64 = 8.5;
/// Dots above each other.
const DOTS_HIGH: usize = 8;

/// Rows of dots over one linear axis that begins at zero.
pub fn dots(title: &str, x_label: &str, rows: &[Dots]) -> String {
    let height = DOTS_TOP + rows.len() as f64 * DOTS_HEIGHT + BOTTOM;
    let mut svg = head(DOTS_WIDTH, height, title, &[]);
    let longest = rows.iter().flat_map(|row| row.places.iter().copied()).fold(0.0, f64::max);
    let (step, end) = linear_ticks(longest);
    let at = |value: f64| DOTS_LEFT + value / end * (DOTS_WIDTH - DOTS_LEFT - RIGHT);
    let bottom = height - BOTTOM;
    let ticks = (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick < end + step / 2.0);
    for tick in ticks {
        grid_line(&mut svg, (at(tick), DOTS_TOP), (at(tick), bottom + 5.0));
        let name = trimmed(&format!("{tick:.3}"));
        text(&mut svg, (at(tick), bottom + 19.0), "middle", FAINT_INK, &name);
    }
    let middle = (DOTS_LEFT + DOTS_WIDTH - RIGHT) / 2.0;
    text(&mut svg, (middle, bottom + 38.0), "middle", FAINT_INK, x_label);
    for (n, row) in rows.iter().enumerate() {
        let base = DOTS_TOP + (n + 1) as f64 * DOTS_HEIGHT - 12.0;
        text(&mut svg, (18.0, base - 12.0), "start", INK, row.style.name);
        text(&mut svg, (18.0, base + 4.0), "start", FAINT_INK, &row.note);
        let mut places: Vec<f64> = row.places.iter().map(|place| at(*place)).collect();
        places.sort_by(f64::total_cmp);
        row_of_dots(&mut svg, &places, base, row.style.color);
    }
    svg + "</svg>\n"
}

/// Dots that would cover each other stand on top of each other.
fn row_of_dots(svg: &mut String, places: &[f64], base: f64, color: &str) {
    let mut pile: Vec<f64> = Vec::new();
    for x in places {
        pile.retain(|other| x - other < DOT_STEP);
        let y = base - (pile.len() % DOTS_HIGH) as f64 * DOT_STEP;
        pile.push(*x);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT_RADIUS}\" fill=\"{color}\" \
             fill-opacity=\"0.75\"/>"
        );
    }
}

/// A round distance between ticks, and a round end behind the longest.
fn linear_ticks(longest: f64) -> (f64, f64) {
    let rough = longest.max(0.001) / 6.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter();
    let step = step.clone().find(|step| *step >= rough).unwrap_or(10.0 * decade);
    (step, (longest.max(0.001) / step).ceil() * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { name: "a < b & c", color: "#123456", dashes: "none" };

    /// Whether every tag is closed in order, and nothing is left unescaped.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let Some((tag, text)) = piece.split_once('>') else { return false };
            if text.contains('&') && !text.contains(';') || tag.matches('"').count() % 2 != 0 {
                return false;
            }
            let name = tag.trim_start_matches('/').split([' ', '/', '>']).next().unwrap();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name.to_owned()) => return false,
                (false, false) => open.push(name.to_owned()),
                _ => {}
            }
        }
        open.is_empty() && svg.starts_with("<svg ") && !svg.contains("NaN")
    }

    fn panel(points: &[(f64, f64)]) -> Panel {
        Panel {
            title: "x < y".to_owned(),
            x_label: "clients",
            x_ticks: points.iter().map(|(x, _)| (*x, x.to_string())).collect(),
            y_show: |y| y.to_string(),
            series: vec![Series {
                style: STYLE,
                points: points
                    .iter()
                    .map(|(x, y)| Point { x: *x, y: *y, is_noisy: *x > 9.0 })
                    .collect(),
            }],
        }
    }

    #[test]
    fn charts_are_well_formed() {
        let many = panel(&[(1.0, 5.0), (16.0, 80.0), (256.0, 20_000.0)]);
        let one = panel(&[(1.0, 5.0)]);
        assert!(is_well_formed(&panels("a & b", &[many, one, panel(&[])])));
        let row = Dots { style: STYLE, places: vec![0.2, 0.2, 0.3], note: "<1>".to_owned() };
        assert!(is_well_formed(&dots("t", "s", &[row])));
        let none = Dots { style: STYLE, places: Vec::new(), note: String::new() };
        assert!(is_well_formed(&dots("t", "s", &[none])));
        assert!(!is_well_formed("<svg ><g></svg>"));
    }

    #[test]
    fn ticks_surround_the_values() {
        assert_eq!(y_ticks([3.0, 40.0].into_iter()), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(y_ticks([3.0, 4000.0].into_iter()), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(y_ticks([10.0].into_iter()), [10.0, 20.0]);
        assert_eq!(y_ticks(std::iter::empty()), [1.0, 10.0]);
        let (step, end) = linear_ticks(1.3);
        assert_eq!(step, 0.5);
        assert_eq!(end, 1.5);
    }

    #[test]
    fn axes_are_logarithmic() {
        let axis = Axis { values: (1.0, 100.0), places: (0.0, 10.0) };
        assert!((axis.at(10.0) - 5.0).abs() < 1e-9);
    }
}
