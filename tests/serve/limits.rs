//! The token, connections, and how a server stops.

use std::thread;
use std::time::Duration;

use ckptfs::serve::{Options, Token};

use crate::fixture::{LARGE_BYTES, Served, options, resolve};

#[test]
fn with_a_token_nothing_is_served_without_it() {
    let served = Served::with(Options {
        token: Some(Token::new("hf_secret").unwrap()),
        ..options()
    });
    let mut client = served.connect();
    for url in [
        "/",
        "/README.md",
        "/api/models/org/model",
        "/org/model/resolve/main/README.md",
    ] {
        for wrong in [
            &[][..],
            &["Authorization: Bearer hf_secrets"],
            &["Authorization: Bearer"],
            &["Authorization: Basic hf_secret"],
            &["Authorization: hf_secret"],
        ] {
            let response = client.get(&format!("GET {url}"), wrong);
            assert_eq!(
                (response.status, response.header("www-authenticate")),
                (401, Some("Bearer")),
                "{url} {wrong:?}"
            );
        }
        let response = client.get(&format!("GET {url}"), &["Authorization: Bearer hf_secret"]);
        assert_eq!(response.status, 200, "{url}");
    }
}

#[test]
fn a_token_is_one_word() {
    assert!(Token::new("").is_err());
    assert!(Token::new("two words").is_err());
    assert!(Token::new("two\nlines").is_err());
    assert!(!format!("{:?}", Token::new("hf_secret")).contains("hf_secret"));
}

#[test]
fn clients_that_take_nothing_do_not_hold_up_others() {
    let served = Served::with_large(options());
    let slow: Vec<_> = (0..40).map(|_| served.begin_large()).collect();
    let (path, whole) = served.shard();
    let response = served.get(&format!("GET {}", resolve("main", &path)), &[]);
    assert!(response.body == whole);
    drop(slow);
}

#[test]
fn connections_beyond_the_bound_are_served_after_others_end() {
    let served = Served::with(Options {
        connections: 2,
        ..options()
    });
    let mut first = served.connect();
    let response = first.get("GET /README.md", &[]);
    assert_eq!(
        (response.status, response.header("connection")),
        (200, None)
    );
    let mut second = served.connect();
    let response = second.get("GET /README.md", &[]);
    // Full: those who are served make room afterwards.
    assert_eq!(
        (response.status, response.header("connection")),
        (200, Some("close"))
    );
    assert!(second.rest().unwrap().is_empty());
    let mut third = served.connect();
    assert_eq!(third.get("GET /README.md", &[]).status, 200);
    drop(first);
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let address = served.address();
            thread::spawn(move || {
                let mut client = crate::client::Client::connect(address);
                client.get("GET /README.md", &[]).status
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 200);
    }
}

#[test]
fn a_head_that_does_not_come_ends_its_connection() {
    let served = Served::with(Options {
        head_timeout: Duration::from_millis(50),
        ..options()
    });
    let mut silent = served.connect();
    assert!(silent.rest().unwrap_or_default().is_empty());
    let mut slow = served.connect();
    slow.send("GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    let answer = slow.rest().unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_cut_off() {
    let served = Served::with_large(Options {
        stall_timeout: Duration::from_millis(50),
        ..options()
    });
    let mut stalled = served.begin_large();
    served.serving.stopper().stop();
    // Its transfer ends long before the time that it has.
    assert_eq!(served.serving.wait().unwrap(), 0);
    assert!(stalled.bytes(LARGE_BYTES).is_err());
}

#[test]
fn a_transfer_goes_on_to_its_end_while_the_server_stops_and_new_requests_are_not_taken() {
    let served = Served::new();
    let (path, whole) = served.shard();
    let mut client = served.connect();
    client.ask(&format!("GET {}", resolve("main", &path)), &[]);
    let head = client.head().unwrap();
    let (mut idle, address) = (served.connect(), served.address());
    assert_eq!(idle.get("GET /README.md", &[]).status, 200);
    served.serving.stopper().stop();
    // The idle connection ends at once.
    assert!(idle.rest().unwrap().is_empty());
    assert!(client.bytes(head.length()).unwrap() == whole);
    assert!(client.rest().unwrap().is_empty());
    assert_eq!(served.serving.wait().unwrap(), 0);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_transfer_that_takes_longer_than_it_may_is_cut_short() {
    let served = Served::with_large(Options {
        grace: Duration::from_millis(50),
        ..options()
    });
    let mut client = served.begin_large();
    served.serving.stopper().stop();
    assert_eq!(served.serving.wait().unwrap(), 1);
    assert!(client.bytes(LARGE_BYTES).is_err());
}

#[test]
fn the_second_time_the_server_stops_at_once() {
    let served = Served::with_large(options());
    let mut client = served.begin_large();
    served.serving.stopper().stop();
    served.serving.stopper().stop();
    assert_eq!(served.serving.wait().unwrap(), 1);
    assert!(client.bytes(LARGE_BYTES).is_err());
}
