//! Lines of standard input, one at a time and of bounded length.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Stdin};

use crate::failure::Failure;

/// Octets of one line without its end; a longer one is skipped and told as such.
pub(crate) const LINE_OCTETS_MAX: usize = 1 << 20;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line, or what stood behind the last one.
    Whole(String),
    /// A line that is no UTF-8.
    NoText,
    /// A line of more than [`LINE_OCTETS_MAX`] octets.
    TooLong,
}

/// Reads lines.
pub(crate) struct Lines<R = BufReader<Stdin>> {
    reader: R,
    line: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// The lines of standard input.
    pub(crate) fn of_stdin() -> Self {
        Self::new(BufReader::new(tokio::io::stdin()))
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), is_too_long: false }
    }

    /// The next line; `None` at the end. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let read = self.reader.fill_buf().await;
            let octets =
                read.map_err(|error| Failure::usage(format!("cannot read the input: {error}")))?;
            let is_end = octets.is_empty();
            let end = octets.iter().position(|&octet| octet == b'\n');
            let (piece, _) = octets.split_at(end.unwrap_or(octets.len()));
            let length = piece.len() + usize::from(end.is_some());
            if self.line.len() + piece.len() > LINE_OCTETS_MAX {
                self.is_too_long = true;
                self.line.clear();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(piece);
            }
            self.reader.consume(length);
            if is_end && self.line.is_empty() && !self.is_too_long {
                return Ok(None);
            }
            if end.is_some() || is_end {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let mut octets = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_too_long) {
            return Line::TooLong;
        }
        if octets.last() == Some(&b'\r') {
            octets.pop();
        }
        String::from_utf8(octets).map_or(Line::NoText, Line::Whole)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(octets: &[u8]) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(BufReader::with_capacity(7, octets));
            let mut all = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                all.push(line);
            }
            all
        })
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.to_owned())
    }

    #[test]
    fn lines_are_cut_at_their_ends() {
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n"), [whole("")]);
        assert_eq!(
            lines(b"a longer line\r\nand\n\nmore"),
            [whole("a longer line"), whole("and"), whole(""), whole("more"),]
        );
    }

    #[test]
    fn what_is_no_text_is_told_and_the_next_line_is_read() {
        assert_eq!(lines(b"\xff\xfe\nok\n"), [Line::NoText, whole("ok")]);
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let mut octets = vec![b'x'; LINE_OCTETS_MAX];
        octets.extend_from_slice(b"\nok\n");
        let read = lines(&octets);
        assert_eq!(read.len(), 2);
        assert!(matches!(&read[0], Line::Whole(line) if line.len() == LINE_OCTETS_MAX));
        octets.insert(0, b'x');
        assert_eq!(lines(&octets), [Line::TooLong, whole("ok")]);
        let endless = vec![b'x'; 2 * LINE_OCTETS_MAX + 1];
        assert_eq!(lines(&endless), [Line::TooLong]);
    }
}
