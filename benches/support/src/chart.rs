//! Charts as SVG, without a library.
//!
//! Draws names and numbers. Knows nothing of what they mean.

use std::fmt::Write;

use super::spread::{Spread, short};

const WIDTH: f64 = 820.0;
const LABELS: f64 = 300.0;
const LINE: f64 = 20.0;
const COLORS: [&str; 8] = ["#2563eb", "#dc2626", "#16a34a", "#9333ea", "#ea580c", "#0891b2", "#65a30d", "#be185d"];
const GREY: &str = "#94a3b8";

/// Bars under one heading.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// The heading.
    pub heading: String,
    /// Each bar.
    pub bars: Vec<Bar>,
}

/// A bar with the range of its value.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it is the value of.
    pub name: String,
    /// The value, and its range.
    pub value: Spread,
    /// Whether it is one of those that the chart is about. The others are grey.
    pub strong: bool,
}

/// A line of points, in the order of their places.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What the line is.
    pub name: String,
    /// Places to the right, and values.
    pub points: Vec<(f64, f64)>,
}

/// Bars from left to right, in groups, under a title and a note. `None` without any.
pub fn bars(title: &str, note: &str, unit: &str, groups: &[Bars]) -> Option<String> {
    let all = || groups.iter().flat_map(|group| &group.bars);
    let most = all().map(|bar| bar.value.most).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    // Room for the number behind the longest bar.
    let scale = (WIDTH - LABELS - 90.0) / most;
    let mut body = String::new();
    let mut y = 52.0;
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        y += LINE;
        text(&mut body, 16.0, y, "start", "bold", &group.heading);
        y += 8.0;
        for bar in &group.bars {
            let (middle, value) = (y + LINE / 2.0, bar.value);
            text(&mut body, LABELS - 8.0, middle + 4.0, "end", "normal", &bar.name);
            let color = if bar.strong { COLORS[0] } else { GREY };
            let width = value.median * scale;
            let _ = writeln!(
                body,
                r#"<rect x="{LABELS}" y="{:.1}" width="{width:.1}" height="14" fill="{color}"/>"#,
                middle - 7.0
            );
            line(&mut body, (LABELS + value.least * scale, middle), (LABELS + value.most * scale, middle), "#0f172a");
            let label = format!("{} {unit}", short(value.median));
            text(&mut body, LABELS + value.most * scale + 6.0, middle + 4.0, "start", "normal", &label);
            y += LINE;
        }
    }
    Some(framed(title, note, y + 16.0, &body))
}

/// Lines over a range of places, under a title and a note. The places stand evenly spaced, and the values by their logarithm: both may span
/// orders of magnitude. `None` without points.
pub fn lines(title: &str, note: &str, places: &str, unit: &str, series: &[Series]) -> Option<String> {
    const LEFT: f64 = 80.0;
    const TOP: f64 = 92.0;
    const HIGH: f64 = 320.0;
    let right = WIDTH - 260.0;
    let points = || series.iter().flat_map(|line| &line.points).filter(|point| point.1 > 0.0);
    let mut at: Vec<f64> = points().map(|point| point.0).collect();
    at.sort_unstable_by(f64::total_cmp);
    at.dedup();
    let spread = Spread::of(points().map(|point| point.1))?;
    let (low, high) = (spread.least.log10().floor(), spread.most.log10().ceil());
    let decades = (high - low).max(1.0);
    let x_of = |place: f64| {
        let number = at.iter().position(|known| *known == place).unwrap_or(0);
        LEFT + 20.0 + (right - LEFT - 40.0) * number as f64 / (at.len().max(2) - 1) as f64
    };
    let y_of = |value: f64| TOP + HIGH - HIGH * (value.log10() - low) / decades;
    let mut body = String::new();
    let mut exponent = low;
    while exponent <= low + decades {
        let (value, y) = (10f64.powf(exponent), y_of(10f64.powf(exponent)));
        line(&mut body, (LEFT, y), (right, y), "#e2e8f0");
        text(&mut body, LEFT - 8.0, y + 4.0, "end", "normal", &short(value));
        exponent += 1.0;
    }
    for place in &at {
        text(&mut body, x_of(*place), TOP + HIGH + 20.0, "middle", "normal", &format!("{place}"));
    }
    text(&mut body, f64::midpoint(LEFT, right), TOP + HIGH + 42.0, "middle", "normal", places);
    text(&mut body, 16.0, TOP - 12.0, "start", "normal", unit);
    for (number, one) in series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let shown = one.points.iter().filter(|point| point.1 > 0.0);
        let path: Vec<(f64, f64)> = shown.map(|point| (x_of(point.0), y_of(point.1))).collect();
        let corners: Vec<String> = path.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let corners = corners.join(" ");
        let _ = writeln!(body, r#"<polyline points="{corners}" fill="none" stroke="{color}" stroke-width="2"/>"#);
        for (x, y) in path {
            let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{color}"/>"#);
        }
        let y = TOP + LINE * number as f64;
        let _ = writeln!(
            body,
            r#"<rect x="{:.1}" y="{:.1}" width="12" height="12" fill="{color}"/>"#,
            right + 16.0,
            y - 10.0
        );
        text(&mut body, right + 34.0, y, "start", "normal", &one.name);
    }
    let legend = TOP + LINE * series.len() as f64;
    Some(framed(title, note, (TOP + HIGH + 60.0).max(legend), &body))
}

fn framed(title: &str, note: &str, height: f64, body: &str) -> String {
    let mut head = String::new();
    text(&mut head, 16.0, 28.0, "start", "bold", title);
    text(&mut head, 16.0, 48.0, "start", "normal", note);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{head}{body}</svg>\n"
    )
}

// Writing to a string does not fail.

fn text(body: &mut String, x: f64, y: f64, anchor: &str, weight: &str, words: &str) {
    let _ = writeln!(
        body,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}" fill="#0f172a">{}</text>"##,
        escaped(words)
    );
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), color: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(body, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}"/>"#);
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, median: f64) -> Bar {
        Bar { name: name.into(), value: Spread { median, least: median / 2.0, most: median * 2.0 }, strong: true }
    }

    #[test]
    fn every_bar_has_its_name_and_value_and_fits() {
        let groups = [
            Bars { heading: "one".into(), bars: vec![bar("a & b <c>", 1.0), bar("long", 4.0)] },
            Bars { heading: "empty".into(), bars: vec![] },
        ];
        let svg = bars("title", "a note", "GB/s", &groups).unwrap_or_default();
        assert!(svg.contains("a &amp; b &lt;c&gt;") && svg.contains(">4.00 GB/s<"), "{svg}");
        assert!(!svg.contains("empty"));
        assert_eq!(svg.matches("height=\"14\"").count(), 2);
        let ends = svg.split("x2=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(ends.fold(0.0, f64::max) < WIDTH);
    }

    #[test]
    fn nothing_draws_nothing() {
        assert_eq!(bars("title", "a note", "GB/s", &[]), None);
        assert_eq!(lines("title", "a note", "ms", "MB/s", &[Series::default()]), None);
    }

    #[test]
    fn lines_have_a_point_for_each_value_and_a_place_for_each_distance() {
        let series = [
            Series { name: "first".into(), points: vec![(0.0, 2000.0), (10.0, 30.0), (200.0, 1.5)] },
            Series { name: "second".into(), points: vec![(0.0, 1000.0), (50.0, 7.0), (200.0, 0.0)] },
        ];
        let svg = lines("title", "a note", "ms", "MB/s", &series).unwrap_or_default();
        assert_eq!(svg.matches("<circle").count(), 5);
        assert_eq!(svg.matches("<polyline").count(), 2);
        for place in [">a note<", ">0<", ">10<", ">50<", ">200<", ">first<", ">second<", ">ms<", ">MB/s<"] {
            assert!(svg.contains(place), "{place} in {svg}");
        }
    }

    #[test]
    fn a_single_point_is_drawn() {
        let series = [Series { name: "one".into(), points: vec![(5.0, 10.0)] }];
        let svg = lines("title", "a note", "ms", "MB/s", &series).unwrap_or_default();
        assert!(svg.contains("<circle") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
