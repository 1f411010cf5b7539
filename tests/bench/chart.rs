//! Charts for the README, as SVG without scripts or fonts of its own: stacked bars of the phases of
//! a wake, and lines of a cost against the number of instances.

use std::fmt::Write as _;

use super::table::{Curve, Phases, short};

const WIDTH: f64 = 860.0;
const COLOURS: &[&str] = &[
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2",
];

/// The beginning of a picture of this height: a white background, so that it is readable on a dark
/// page too, and a title.
fn begin(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A step between two marks of an axis that ends at `max`: 1, 2 or 5 times a power of ten, about
/// five of them.
fn step(max: f64) -> f64 {
    let rough = (max / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|n| n * power)
        .into_iter()
        .find(|s| *s >= rough)
        .unwrap_or(rough)
}

/// The consecutive phases; figures that overlap with them are not part of the bar.
fn stacked(phases: &Phases) -> impl Iterator<Item = &(String, f64)> {
    phases
        .parts
        .iter()
        .filter(|(name, _)| !name.starts_with("of which"))
}

/// One bar for each wake, with a mark at the application's own start time.
pub fn wakes(all: &[Phases], title: &str) -> String {
    let names: Vec<&str> = all
        .first()
        .map_or_else(Vec::new, |p| stacked(p).map(|(n, _)| n.as_str()).collect());
    let total = |p: &Phases| stacked(p).map(|(_, ms)| ms).sum::<f64>();
    let max = all
        .iter()
        .map(|p| total(p).max(p.own))
        .fold(0.0, f64::max)
        .max(0.01)
        * 1.08;
    let longest = all
        .iter()
        .map(|p| p.name.chars().count())
        .max()
        .unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a name")]
    let (left, right) = (
        (20.0 + 7.0 * longest as f64).clamp(150.0, WIDTH / 2.0),
        WIDTH - 90.0,
    );
    let x = |ms: f64| left + (right - left) * ms / max;
    #[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
    let height = 110.0 + 34.0 * all.len() as f64;
    let mut svg = begin(height, title);
    let mut at = 16.0;
    for (n, name) in names.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"40\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            COLOURS[n % COLOURS.len()]
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"51\">{}</text>",
            at + 17.0,
            escaped(name)
        );
        #[expect(clippy::cast_precision_loss, reason = "a short word")]
        let wide = name.len() as f64;
        at += 40.0 + 7.5 * wide;
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{at} 40v12\" stroke=\"#000\" stroke-width=\"2\"/><text x=\"{}\" y=\"51\">own start</text>",
        at + 7.0
    );
    let bottom = height - 34.0;
    let mut tick = 0.0;
    while tick <= max {
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} 66V{bottom}\" stroke=\"#ddd\"/>",
            x(tick)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick} ms</text>",
            x(tick),
            bottom + 18.0
        );
        tick += step(max);
    }
    let mut y = 72.0;
    for phases in all {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 16.0,
            escaped(&phases.name)
        );
        let mut from = 0.0;
        for (n, (name, ms)) in stacked(phases).enumerate() {
            let (colour, wide) = (COLOURS[n % COLOURS.len()], x(from + ms) - x(from));
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"22\" fill=\"{colour}\"><title>{}: {} ms</title></rect>",
                x(from),
                escaped(name),
                short(*ms)
            );
            from += ms;
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {}v28\" stroke=\"#000\" stroke-width=\"2\"/>",
            x(phases.own),
            y - 3.0
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{} ms</text>",
            x(from.max(phases.own)) + 6.0,
            y + 16.0,
            short(from)
        );
        y += 34.0;
    }
    svg + "</svg>\n"
}

/// One line for each cost, each with an axis of its own in a panel of its own; the number of
/// instances on a logarithmic axis.
pub fn costs(all: &[Curve], title: &str) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
    let height = 60.0 + 150.0 * all.len() as f64;
    let mut svg = begin(height, title);
    let (left, right) = (90.0, WIDTH - 40.0);
    let counts = all
        .iter()
        .flat_map(|c| c.runs.iter().flatten().map(|p| p.0.max(1.0)));
    let (least, most) = counts.fold((f64::MAX, 1.0), |(a, b): (f64, f64), n| {
        (a.min(n), b.max(n))
    });
    let span = (most / least).log10().max(f64::MIN_POSITIVE);
    let x = |n: f64| left + (right - left) * (n.max(1.0) / least).log10() / span;
    for (n, curve) in all.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
        let top = 62.0 + 150.0 * n as f64;
        let max = curve
            .runs
            .iter()
            .flatten()
            .map(|p| p.1)
            .fold(0.0, f64::max)
            .max(f64::MIN_POSITIVE)
            * 1.15;
        let y = |cost: f64| top + 100.0 - 90.0 * cost / max;
        let colour = COLOURS[n % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            top - 4.0,
            escaped(&curve.name)
        );
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {0}H{right}M{left} {0}V{1}\" stroke=\"#888\" fill=\"none\"/>",
            top + 100.0,
            top + 6.0
        );
        for run in &curve.runs {
            let points: Vec<String> = run
                .iter()
                .map(|(n, cost)| format!("{:.1},{:.1}", x(*n), y(*cost)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
        }
        // All runs begin at about the same value, so that value is printed once.
        let first = |at: usize| usize::from(at + 1 < curve.runs.len());
        for (count, cost) in curve
            .runs
            .iter()
            .enumerate()
            .flat_map(|(at, run)| run.iter().skip(first(at)))
        {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
                x(*count),
                y(*cost)
            );
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(*count),
                y(*cost) - 8.0,
                short(*cost)
            );
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{count}</text>",
                x(*count),
                top + 117.0
            );
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tag that opens also closes, and every number is valid.
    fn well_formed(svg: &str) {
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let mut reader = quick_xml::Reader::from_str(svg);
        reader.config_mut().check_end_names = true;
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => break,
                Ok(_) => {}
                Err(e) => panic!("{e}: {svg}"),
            }
        }
    }

    #[test]
    fn charts_are_pictures() {
        let part = |name: &str, ms| (name.to_owned(), ms);
        let phases = Phases {
            name: "builtin, <tiny>".into(),
            parts: vec![
                part("noticed", 0.2),
                part("spawned", 0.6),
                part("of which the supervisor's call", 0.4),
            ],
            own: 1.2,
        };
        let svg = wakes(&[phases.clone(), phases], "Where a wake goes");
        well_formed(&svg);
        assert!(
            svg.contains("0.80 ms") && svg.contains("&lt;tiny&gt;") && !svg.contains("of which")
        );
        well_formed(&wakes(&[], "nothing"));
        let curve = Curve {
            name: "server, MiB".into(),
            runs: vec![vec![(10.0, 12.0), (10_000.0, 14.0)]],
        };
        well_formed(&costs(&[curve.clone(), curve], "Cost"));
        well_formed(&costs(&[], "nothing"));
    }

    #[test]
    fn axes_have_round_steps() {
        assert_eq!([4.0, 9.0, 47.0, 230.0].map(step), [1.0, 2.0, 10.0, 50.0]);
    }
}
