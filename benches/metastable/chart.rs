//! Goodput over time as an SVG that needs nothing else.

use std::fmt::Write;

use super::{CAPACITY, END, TRIGGER};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const COLOURS: [&str; 5] = ["#d1495b", "#00798c", "#edae49", "#66a182", "#7a5195"];

pub fn draw(title: &str, lines: &[(String, Vec<f64>)]) -> String {
    let most = lines.iter().flat_map(|(_, values)| values).copied().fold(CAPACITY * 1.1, f64::max);
    let x = |second: f64| LEFT + second / END * WIDTH;
    let y = |value: f64| TOP + HEIGHT - value / most * HEIGHT;
    let mut svg = String::new();
    let (width, height) = (WIDTH + LEFT + 40.0, HEIGHT + TOP + 90.0);
    // Writing to a String does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">Calls answered in time, per second: {title} for {:.0} s</text>\n\
         <rect x=\"{}\" y=\"{TOP}\" width=\"{}\" height=\"{HEIGHT}\" fill=\"#eee\"/>\n",
        TRIGGER.1 - TRIGGER.0,
        x(TRIGGER.0),
        x(TRIGGER.1) - x(TRIGGER.0),
    );
    for value in (0..=5).map(|step| most / 5.0 * f64::from(step)) {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{value:.0}</text>",
            y(value),
            LEFT + WIDTH,
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    for second in (0..=END as u32).step_by(5) {
        let (at, below) = (x(f64::from(second)), TOP + HEIGHT + 18.0);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{second} s</text>");
    }
    for (place, (name, values)) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(step, value)| format!("{:.1},{:.1}", x(step as f64 / 2.0 + 0.25), y(*value)))
            .collect();
        let (left, below) = (LEFT + 170.0 * place as f64, TOP + HEIGHT + 50.0);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <path d=\"M{left} {below}h24\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            points.join(" "),
            left + 30.0,
            below + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
