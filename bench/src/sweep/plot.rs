//! The plot of claim rates: an SVG that reads well on light and on dark, both axes logarithmic.

use std::fmt::Write as _;
use std::time::Duration;

use crate::sandboxes::Sandbox;

/// What stands above the table.
pub(super) const PAGE: &str = "\
# Claim rates

`cargo xtask bench sweep` writes this page and its plot: crews of one agent come as a Poisson process, more and more of
them, until the pool has nothing left. An agent is READY when its handler has answered `initialize` and the log says so.

![Time from the request to an agent that is READY, by claims a second](claim-rates.svg)

Beside ours stand the published figures of [kubernetes-sigs/agent-sandbox](https://github.com/kubernetes-sigs/agent-sandbox)
(`docs/performance-tuning.md`, commit 2cab158): claims of warm sandboxes at 45/s, Poisson, over four pools of 113 on a
cluster: p50 92 ms, p90 182 ms, p99 376 ms; 75 claims at once whose pods start cold: p50 41 to 50 s. They were measured by its
authors, on a cluster of many machines and with pods that have a network. Only their order of size compares.
";

/// How long claims took at one rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) per_second: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Whether some found nothing that stood by.
    pub(super) is_drained: bool,
}

/// How long claims took of sandboxes of one kind.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) kind: Sandbox,
    pub(super) points: Vec<Point>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 410.0;
/// The ends of the axes: claims a second, and milliseconds.
const RATES: (f64, f64) = (4.0, 900.0);
const TIMES_MS: (f64, f64) = (0.5, 100_000.0);
/// What the peer published of claims of what is warm; and how many it had come at once, to find nothing.
const PEER: [(&str, u64); 3] = [("p50", 92), ("p90", 182), ("p99", 376)];
const PEER_BURST: f64 = 75.0;
const PEER_DRAINED_MS: (u64, u64) = (41_000, 50_000);

const STYLE: &str = "
text{font:13px system-ui,sans-serif;fill:#374151}
.title{font-weight:600;font-size:15px}
.grid{stroke:#9ca3af;stroke-opacity:.4;stroke-width:1}
.process{stroke:#7c3aed;fill:#7c3aed}.native{stroke:#047857;fill:#047857}
.docker{stroke:#1d4ed8;fill:#1d4ed8}.peer{stroke:#c2410c;fill:#c2410c}.key{stroke:#374151;fill:#374151}
.line{fill:none;stroke-width:2}.tail{stroke-dasharray:6 4}.hollow{fill:none;stroke-width:2}.bar{stroke-width:6}
@media (prefers-color-scheme:dark){text{fill:#d1d5db}.grid{stroke:#6b7280}
.process{stroke:#a78bfa;fill:#a78bfa}.native{stroke:#34d399;fill:#34d399}
.docker{stroke:#60a5fa;fill:#60a5fa}.peer{stroke:#fb923c;fill:#fb923c}.key{stroke:#d1d5db;fill:#d1d5db}}
text{stroke:none}
";

fn along(value: f64, (least, most): (f64, f64), (from, to): (f64, f64)) -> f64 {
    from + (to - from) * (value.clamp(least, most) / least).ln() / (most / least).ln()
}

fn x(per_second: f64) -> f64 {
    along(per_second, RATES, (LEFT, RIGHT))
}

fn y(took: Duration) -> f64 {
    along(took.as_secs_f64() * 1e3, TIMES_MS, (BOTTOM, TOP))
}

/// Draws the curves and the peer's figures.
pub(super) fn svg(curves: &[Curve]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Time from the request to an agent that is READY, by claims a second</title>\n<style>{STYLE}</style>\n"
    );
    text(&mut out, LEFT, 26.0, "title", "From the HTTP request to READY, by claims a second");
    axes(&mut out);
    for curve in curves {
        draw(&mut out, curve);
    }
    peer(&mut out);
    legend(&mut out, curves);
    out += "</svg>\n";
    out
}

// Writing to a string cannot fail, so what it answers is dropped.

fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
    );
}

fn dot(out: &mut String, (x, y): (f64, f64), class: &str) {
    let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" class=\"{class}\"/>");
}

fn axes(out: &mut String) {
    for rate in super::RATES {
        let at = x(rate.into());
        line(out, (at, TOP), (at, BOTTOM), "grid");
        text(out, at - 4.0 * rate.to_string().len() as f64, BOTTOM + 20.0, "", &rate.to_string());
    }
    for (name, took) in
        [("1 ms", 1), ("10 ms", 10), ("100 ms", 100), ("1 s", 1_000), ("10 s", 10_000), ("100 s", 100_000)]
    {
        let at = y(Duration::from_millis(took));
        line(out, (LEFT, at), (RIGHT, at), "grid");
        text(out, LEFT - 8.0 - 7.0 * name.len() as f64, at + 4.0, "", name);
    }
    text(out, (LEFT + RIGHT) / 2.0 - 60.0, BOTTOM + 46.0, "", "claims a second");
}

fn draw(out: &mut String, Curve { kind, points }: &Curve) {
    let _ = writeln!(out, "<g class=\"{kind}\">");
    for (class, took) in [("line", p50 as fn(&Point) -> Duration), ("line tail", p99)] {
        let at = |point: &Point| (x(point.per_second), y(took(point)));
        let corners: Vec<String> = points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" class=\"{class}\"/>", corners.join(" "));
        for point in points {
            dot(out, at(point), if point.is_drained { "hollow" } else { "" });
        }
    }
    out.push_str("</g>\n");
}

fn p50(point: &Point) -> Duration {
    point.p50
}

fn p99(point: &Point) -> Duration {
    point.p99
}

fn peer(out: &mut String) {
    out.push_str("<g class=\"peer\">\n");
    for (name, ms) in PEER {
        let (x, y) = (x(f64::from(super::PEER_RATE)), y(Duration::from_millis(ms)));
        dot(out, (x, y), "");
        text(out, x + 9.0, y + 4.0, "", &format!("{name} {ms} ms"));
    }
    let ends = [PEER_DRAINED_MS.0, PEER_DRAINED_MS.1].map(|ms| y(Duration::from_millis(ms)));
    let at = x(PEER_BURST);
    line(out, (at, ends[0]), (at, ends[1]), "bar");
    text(out, at + 9.0, ends[0] + 3.0, "", "75 at once, cold: p50 41 to 50 s");
    out.push_str("</g>\n");
}

fn legend(out: &mut String, curves: &[Curve]) {
    let (left, mut at) = (RIGHT + 24.0, TOP + 10.0);
    let mut entry = |class: &str, mark: fn(&mut String, f64, f64), name: &str| {
        let _ = writeln!(out, "<g class=\"{class}\">");
        mark(out, left, at - 4.0);
        text(out, left + 38.0, at, "", name);
        out.push_str("</g>\n");
        at += 24.0;
    };
    for Curve { kind, .. } in curves {
        let name = kind.to_string();
        entry(&name, |out, x, y| line(out, (x, y), (x + 28.0, y), "line"), &name);
    }
    entry("peer", |out, x, y| dot(out, (x + 14.0, y), ""), "agent-sandbox*");
    entry("key", |out, x, y| line(out, (x, y), (x + 28.0, y), "line"), "p50");
    entry("key", |out, x, y| line(out, (x, y), (x + 28.0, y), "line tail"), "p99");
    entry("key", |out, x, y| dot(out, (x + 14.0, y), "hollow"), "pool drained");
    text(out, left, BOTTOM - 14.0, "", "* published, measured");
    text(out, left, BOTTOM + 4.0, "", "on another machine");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_is_as_long_as_any_other() {
        let y = |ms| y(Duration::from_millis(ms));
        assert!((y(1) - y(10) - (y(1_000) - y(10_000))).abs() < 1e-6);
        assert!(y(1) > y(10) && x(5.0) < x(45.0));
        assert!((y(100_000) - TOP).abs() < 1e-6 && y(10_000_000) >= TOP);
    }

    #[test]
    fn every_curve_is_drawn_and_every_element_is_closed() {
        let point = |per_second, is_drained| Point {
            per_second,
            p50: Duration::from_millis(4),
            p99: Duration::from_millis(9),
            is_drained,
        };
        let curve = Curve { kind: Sandbox::Native, points: vec![point(5.0, false), point(45.0, true)] };
        let svg = svg(&[curve]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        // One of the legend and those of the drained rate.
        assert_eq!(svg.matches("class=\"hollow\"").count(), 3);
        for name in ["g", "text", "svg", "style", "title"] {
            let opened =
                svg.matches(&format!("<{name} ")).count() + svg.matches(&format!("<{name}>")).count();
            assert_eq!(opened, svg.matches(&format!("</{name}>")).count(), "{name}");
        }
    }
}
