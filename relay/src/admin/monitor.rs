//! The monitor: `GET /metrics`, `/alive` and `/ready` over plain HTTP on a loopback address.
//!
//! Understands just enough HTTP/1.1 for a scraper and a health check: one request a connection,
//! headers ignored, at most [`REQUEST_OCTETS_MAX`] octets, within [`REQUEST_DEADLINE`].

use std::time::Duration;

use crate::ring::{Connection, Handle, Listener};

/// Octets of a request's head.
const REQUEST_OCTETS_MAX: usize = 8 * 1_024;
/// How long a request may take to arrive and its answer to leave.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Requests served at once; more wait in the listener's backlog.
const REQUESTS_MAX: usize = 16;

/// What a page says.
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub body: String,
}

/// Answers requests until the ring ends. `page` gives the page of a path, or `None`.
pub async fn serve(
    handle: Handle,
    listener: Listener,
    page: impl Fn(&str) -> Option<Page> + Clone + 'static,
) {
    let active = std::rc::Rc::new(std::cell::Cell::new(0_usize));
    loop {
        let Ok(connection) = listener.accept().await else { continue };
        if active.get() >= REQUESTS_MAX {
            // Dropped: the scraper sees a closed connection and comes again.
            continue;
        }
        active.set(active.get() + 1);
        let (page, active) = (page.clone(), std::rc::Rc::clone(&active));
        let timer = handle.clone();
        handle.spawn(async move {
            // A request that takes too long is dropped; nobody waits for its answer.
            let _ = timer.timeout(REQUEST_DEADLINE, answer(&connection, page)).await;
            active.set(active.get() - 1);
        });
    }
}

async fn answer(connection: &Connection, page: impl Fn(&str) -> Option<Page>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.receive().await {
            Ok(Some(octets)) if request.len() + octets.len() <= REQUEST_OCTETS_MAX => {
                request.extend_from_slice(&octets);
            }
            _ => return,
        }
    }
    let response = respond(&request, page);
    // The scraper may be gone; there is nobody else to tell.
    let _ = connection.send_all(response.into_bytes()).await;
    connection.shutdown();
}

/// The whole response to a whole request head.
fn respond(request: &[u8], page: impl Fn(&str) -> Option<Page>) -> String {
    let line = request.split(|&octet| octet == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let page = match (words.next(), words.next()) {
        (Some("GET"), Some(path)) => page(path).unwrap_or_else(|| Page {
            status: 404,
            body: "here are /metrics, /alive and /ready\n".to_owned(),
        }),
        _ => Page { status: 405, body: "only GET is answered here\n".to_owned() },
    };
    let reason = match page.status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        page.status,
        page.body.len(),
        page.body
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        let page = |path: &str| {
            (path == "/alive").then(|| Page { status: 200, body: "alive\n".to_owned() })
        };
        respond(request.as_bytes(), page).split(' ').nth(1).unwrap_or_default().to_owned()
    }

    #[test]
    fn only_what_is_there() {
        assert_eq!(status("GET /alive HTTP/1.1\r\n\r\n"), "200");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status("POST /alive HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(status("\u{1F9ED}\r\n\r\n"), "405");
    }
}
