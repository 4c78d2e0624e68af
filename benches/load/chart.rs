//! A bar chart as SVG, by hand: nothing else here needs a drawing library.

use std::fmt::Write;

pub struct Bar {
    pub name: String,
    pub value: f64,
    pub least: f64,
    pub most: f64,
}

pub struct Chart {
    pub title: String,
    pub bars: Vec<Bar>,
}

const ROW: usize = 26;
const LEFT: f64 = 190.0;
const WIDTH: f64 = 420.0;

impl Chart {
    pub fn draw(&self) -> String {
        let height = 44 + ROW * self.bars.len();
        let most = self.bars.iter().map(|bar| bar.most).fold(f64::MIN_POSITIVE, f64::max);
        let scale = WIDTH / most;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"10\" y=\"22\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for (row, bar) in self.bars.iter().enumerate() {
            let (top, middle) = (36 + ROW * row, 36 + ROW * row + 9);
            let colour = if bar.name.starts_with("outrigger") { "#0a7d5a" } else { "#8a94a6" };
            let (end, least, most) = (LEFT + bar.value * scale, LEFT + bar.least * scale, LEFT + bar.most * scale);
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
                 <line x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{:.1}</text>\n",
                LEFT - 8.0,
                middle + 4,
                bar.name,
                end - LEFT,
                most + 6.0,
                middle + 4,
                bar.value
            ); // into a String: cannot fail
        }
        svg.push_str("</svg>\n");
        svg
    }
}
