//! Draws the pictures of the handbook from text, as SVG that is legible in light and dark mode and on a phone.
//!
//! A picture is one or more panels. `title` begins one. A panel of two sides has their names (`client | server`), then messages from the left
//! (`->`) and from the right (`<-`), those that do harm (`x>`, `<x`), and a `note` between the two. A panel of times has a scale (`ticks`), and a
//! `bar` from one time to another. `good` and `bad` state the outcome; in a panel of times, `bad` is a moment.

use std::fmt::Write;

const WIDTH: u32 = 360;
const LIFELINES: [u32; 2] = [46, 314];
const SCALE: [u32; 2] = [20, 340];
/// What fits into the width.
const MAX_CHARACTERS: usize = 50;

const STYLE: &str = "  rect.page { fill: #ffffff; }
  text { font: 13px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }
  text.title, text.good, text.bad { font-weight: 600; }
  text.note { font-style: italic; }
  text.left { text-anchor: start; }
  text.good { fill: #1a7f37; } text.bad, text.harm { fill: #cf222e; }
  path { stroke: #8c959f; fill: none; } path.life { stroke-dasharray: 4 4; }
  path.message { stroke: #0969da; stroke-width: 1.6; } path.harm { stroke: #cf222e; stroke-width: 1.6; stroke-dasharray: 6 3; }
  polygon.message, rect.bar { fill: #0969da; } polygon.harm { fill: #cf222e; }
  @media (prefers-color-scheme: dark) {
    rect.page { fill: #161b22; } text { fill: #e6edf3; stroke: #161b22; }
    text.good { fill: #56d364; } text.bad, text.harm { fill: #ff7b72; }
    path { stroke: #7d8590; } path.message { stroke: #58a6ff; } path.harm { stroke: #ff7b72; }
    polygon.message, rect.bar { fill: #58a6ff; } polygon.harm { fill: #ff7b72; }
  }
";

/// The picture of a text, or the line that is not understood.
pub(crate) fn draw(text: &str) -> Result<String, String> {
    let mut drawing = Drawing::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        drawing
            .add(line)
            .ok_or_else(|| format!("`{line}` is not understood, or longer than {MAX_CHARACTERS} characters"))?;
    }
    drawing.end_panel();
    let Drawing { height, shapes, .. } = drawing;
    let height = height + 8;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>\n{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n{shapes}</svg>\n"
    ))
}

#[derive(Default)]
struct Drawing {
    height: u32,
    shapes: String,
    /// Where the lifelines of the panel begin and where they end.
    life: Option<[u32; 2]>,
    scale: Option<Scale>,
}

/// The scale of a panel of times.
struct Scale {
    ticks: Vec<u32>,
    /// Where its lines begin.
    top: u32,
    /// What is drawn before the text of the panel, so that the text is above its lines.
    lines: usize,
}

impl Drawing {
    /// Adds a line of the text, if it is understood.
    fn add(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        if rest.chars().count() > MAX_CHARACTERS {
            return None;
        }
        match word {
            "title" => {
                self.end_panel();
                let down = if self.height == 0 { 30 } else { 44 };
                self.text(WIDTH / 2, down, "title", rest);
                self.height += 8;
            }
            "->" => self.message(0, "message", rest),
            "<-" => self.message(1, "message", rest),
            "x>" => self.message(0, "harm", rest),
            "<x" => self.message(1, "harm", rest),
            "note" => {
                self.text(WIDTH / 2, 28, "note", rest);
                self.height += 2;
                self.live();
            }
            "ticks" => {
                let ticks: Option<Vec<u32>> = rest.split(' ').map(|tick| tick.parse().ok()).collect();
                self.scale = Some(Scale { ticks: ticks?, top: self.height + 8, lines: self.shapes.len() });
            }
            "bar" => {
                let mut words = rest.splitn(3, ' ');
                let from = self.place(words.next()?.parse().ok()?)?;
                let to = self.place(words.next()?.parse().ok()?)?;
                self.text(SCALE[0] + 3, 26, "left", words.next()?);
                let (y, width) = (self.height + 6, to - from);
                writeln!(
                    self.shapes,
                    "<rect class=\"bar\" x=\"{from}\" y=\"{y}\" width=\"{width}\" height=\"8\" rx=\"2\"/>"
                )
                .ok()?;
                self.height += 14;
            }
            "bad" if self.scale.is_some() => {
                let (moment, rest) = rest.split_once(' ')?;
                let x = self.place(moment.parse().ok()?)?;
                self.text(WIDTH / 2, 26, "bad", rest);
                let Scale { top, lines, .. } = self.scale.as_ref()?;
                let line = format!("<path class=\"harm\" d=\"M{x} {top} V{}\"/>\n", self.height + 6);
                self.shapes.insert_str(*lines, &line);
            }
            "good" | "bad" => {
                self.end_life();
                self.text(WIDTH / 2, 22, word, rest);
            }
            name => {
                let other = rest.strip_prefix("| ")?;
                self.text(LIFELINES[0], 22, "title", name);
                self.height -= 22;
                self.text(LIFELINES[1], 22, "title", other);
                self.life = Some([self.height + 6, self.height + 6]);
                self.height += 4;
            }
        }
        Some(())
    }

    /// Where a time is on the scale.
    fn place(&self, time: u32) -> Option<u32> {
        let Scale { ticks, .. } = self.scale.as_ref()?;
        let (first, last) = (ticks.first()?, ticks.last()?);
        Some(
            SCALE[0]
                + (SCALE[1] - SCALE[0]) * time.checked_sub(*first)?
                    / last.checked_sub(*first).filter(|range| *range > 0)?,
        )
    }

    fn text(&mut self, x: u32, down: u32, class: &str, text: &str) {
        self.height += down;
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.shapes, "<text class=\"{class}\" x=\"{x}\" y=\"{}\">{text}</text>", self.height);
    }

    fn message(&mut self, sender: usize, class: &str, text: &str) {
        self.text(WIDTH / 2, 24, if class == "harm" { "harm" } else { "" }, text);
        let (from, to, back) = match sender {
            0 => (LIFELINES[0] + 4, LIFELINES[1] - 4, LIFELINES[1] - 12),
            _ => (LIFELINES[1] - 4, LIFELINES[0] + 4, LIFELINES[0] + 12),
        };
        let (start, end) = (self.height + 5, self.height + 12);
        let _ = writeln!(self.shapes, "<path class=\"{class}\" d=\"M{from} {start} L{back} {end}\"/>");
        let _ = writeln!(
            self.shapes,
            "<polygon class=\"{class}\" points=\"{to},{end} {back},{} {back},{}\"/>",
            end - 5,
            end + 4
        );
        self.height += 12;
        self.live();
    }

    /// The lifelines last to here, at the least.
    fn live(&mut self) {
        if let Some([_, end]) = &mut self.life {
            *end = self.height + 10;
        }
    }

    fn end_life(&mut self) {
        let Some([start, end]) = self.life.take() else { return };
        let [left, right] = LIFELINES;
        let _ = writeln!(self.shapes, "<path class=\"life\" d=\"M{left} {start} V{end} M{right} {start} V{end}\"/>");
        self.height = end + 2;
    }

    fn end_panel(&mut self) {
        self.end_life();
        let Some(Scale { ticks, top, lines }) = self.scale.take() else { return };
        self.height += 6;
        for tick in &ticks {
            let x = SCALE[0] + (SCALE[1] - SCALE[0]) * (tick - ticks[0]) / (ticks[ticks.len() - 1] - ticks[0]);
            self.shapes.insert_str(lines, &format!("<path class=\"life\" d=\"M{x} {top} V{}\"/>\n", self.height));
            self.text(x, 16, "", &tick.to_string());
            self.height -= 16;
        }
        self.height += 16;
    }
}
