//! A time line as text.

use std::fmt::Write;

use super::timeline::{Sender, Timeline};

/// The distance between client and server.
const WIDTH: usize = 46;

pub(crate) fn draw(timeline: &Timeline) -> String {
    let mut picture = format!("{}\n{:>9}  client{:>width$}\n", timeline.purpose(), "ms", "server", width = WIDTH - 4);
    for entry in timeline.entries() {
        let at = entry.at.as_secs_f64() * 1_000.0;
        // A `String` can always be written to.
        let _ = match entry.sender {
            Sender::Client => writeln!(picture, "{at:>9.1}  |{:-<WIDTH$}>|", format!("-- {entry} ")),
            Sender::Server => writeln!(picture, "{at:>9.1}  |<{:->WIDTH$}|", format!(" {entry} --")),
        };
    }
    picture
}
