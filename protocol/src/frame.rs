//! Cuts a stream of octets into lines, however the stream is chunked (SPEC.md §2).
//!
//! A line ends at CRLF and nowhere else: an LF alone stays inside its line, where the parser
//! refuses it, so two readers can never disagree about where a line ends. Holds at most one
//! line of the limit plus what was pushed last; an over-long line is dropped as it arrives.

use crate::error::Error;
use crate::limits::LINE_OCTETS_DEFAULT;

/// A buffer that takes chunks and gives lines.
#[derive(Debug)]
pub struct LineBuffer {
    octets: Vec<u8>,
    /// Where the first line not yet given begins.
    start: usize,
    /// Up to where no CRLF was found.
    scanned: usize,
    line_octets_max: usize,
    is_skipping: bool,
}

impl LineBuffer {
    /// A buffer for lines of at most `line_octets_max` octets, CRLF included.
    #[must_use]
    pub const fn new(line_octets_max: usize) -> Self {
        Self { octets: Vec::new(), start: 0, scanned: 0, line_octets_max, is_skipping: false }
    }

    /// Changes the limit for lines not yet given.
    pub const fn set_line_octets_max(&mut self, line_octets_max: usize) {
        self.line_octets_max = line_octets_max;
    }

    /// Adds octets as they came from the link.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.start > 0 {
            self.octets.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.octets.extend_from_slice(chunk);
    }

    /// The next whole line without its CRLF, if there is one.
    ///
    /// # Errors
    /// [`Error::LineTooLong`] once for each over-long line; the lines behind it are given.
    pub fn next_line(&mut self) -> Option<Result<&[u8], Error>> {
        loop {
            let Some(end) = self.find_end() else {
                return self.keep_or_skip();
            };
            let begin = self.start;
            self.start = end + 2;
            self.scanned = self.start;
            if core::mem::take(&mut self.is_skipping) {
                continue;
            }
            if end + 2 - begin > self.line_octets_max {
                return Some(Err(Error::LineTooLong));
            }
            return self.octets.get(begin..end).map(Ok);
        }
    }

    /// Octets held that do not yet make a line.
    #[must_use]
    pub const fn pending_octets(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Gives back the memory of an empty buffer.
    pub fn shrink(&mut self) {
        if self.pending_octets() == 0 {
            self.octets = Vec::new();
            self.start = 0;
            self.scanned = 0;
        }
    }

    /// Where the CR of the next CRLF is.
    fn find_end(&mut self) -> Option<usize> {
        let mut from = self.scanned.max(self.start);
        while let Some(offset) = find_feed(self.octets.get(from..)?) {
            let feed = from + offset;
            if feed > self.start && self.octets.get(feed - 1) == Some(&b'\r') {
                return Some(feed - 1);
            }
            from = feed + 1;
        }
        self.scanned = self.octets.len();
        None
    }

    /// No whole line: keeps what is there, or starts dropping it once it is too long.
    fn keep_or_skip(&mut self) -> Option<Result<&[u8], Error>> {
        // One more octet than the limit cannot become a line that fits; a CR that ends what is
        // held may still be half of a CRLF and stays.
        if self.pending_octets() < self.line_octets_max {
            return None;
        }
        let ends_in_return = self.octets.last() == Some(&b'\r');
        self.start = self.octets.len() - usize::from(ends_in_return);
        self.scanned = self.start;
        if core::mem::replace(&mut self.is_skipping, true) {
            None
        } else {
            Some(Err(Error::LineTooLong))
        }
    }
}

/// Where the first LF is. Looks at 64 octets at once, of which the compiler makes wide
/// comparisons.
fn find_feed(octets: &[u8]) -> Option<usize> {
    let mut start = 0;
    for chunk in octets.chunks(64) {
        let count = |feeds: u8, octet: &u8| feeds.wrapping_add(u8::from(*octet == b'\n'));
        if chunk.iter().fold(0, count) != 0 {
            return chunk.iter().position(|&octet| octet == b'\n').map(|offset| start + offset);
        }
        start += chunk.len();
    }
    None
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::new(LINE_OCTETS_DEFAULT)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(stream: &[u8], chunk: usize, limit: usize) -> Vec<Result<Vec<u8>, Error>> {
        let mut buffer = LineBuffer::new(limit);
        let mut found = Vec::new();
        for piece in stream.chunks(chunk) {
            buffer.push(piece);
            while let Some(line) = buffer.next_line() {
                found.push(line.map(<[u8]>::to_vec));
            }
        }
        found
    }

    #[test]
    fn any_chunking_gives_the_same_lines() {
        let stream = b"a\r\n\r\nb\nc\rd\r\n\n\r\n0123456789012345\r\n0123456789\r\nx\r\r\ny";
        let whole = lines(stream, stream.len(), 12);
        let expected: Vec<Result<Vec<u8>, Error>> = vec![
            Ok(b"a".to_vec()),
            Ok(Vec::new()),
            Ok(b"b\nc\rd".to_vec()),
            Ok(b"\n".to_vec()),
            Err(Error::LineTooLong),
            Ok(b"0123456789".to_vec()),
            Ok(b"x\r".to_vec()),
        ];
        assert_eq!(whole, expected);
        for chunk in 1..stream.len() {
            assert_eq!(lines(stream, chunk, 12), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn limit_at_n_and_one_more() {
        for chunk in 1..14 {
            let fits = lines(b"0123456789\r\n", chunk, 12);
            assert_eq!(fits, vec![Ok(b"0123456789".to_vec())]);
            assert_eq!(lines(b"0123456789x\r\n", chunk, 12), vec![Err(Error::LineTooLong)]);
        }
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut buffer = LineBuffer::new(64);
        for _ in 0..1_000 {
            buffer.push(&[b'x'; 50]);
            while buffer.next_line().is_some() {}
            assert!(buffer.pending_octets() < 64);
        }
    }
}
