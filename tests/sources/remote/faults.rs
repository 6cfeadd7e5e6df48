//! What goes wrong on the way: it is made good, or an error, and never another byte.

use std::time::Duration;

use ckptfs::error::Code;
use ckptfs::materialize::{Options, materialize};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use ckptfs::source::remote::{BlockCacheOptions, Network, NetworkOptions};
use ckptfs::verify::against_view;

use super::{FIRST, SECOND, base, network, options, plan, served};
use crate::common::Workspace;
use crate::common::readback::{read_all, reader};
use crate::common::web_server::{Trouble, WebServer};

/// The code of reading all of the view of `url`, after `happen`.
fn outcome(server: &WebServer, url: &str, happen: impl FnOnce()) -> Result<(), Code> {
    let plan = plan(&network(server), url).map_err(|error| error.code())?;
    happen();
    let reader = reader(&plan);
    for (id, _, content) in plan.view.files() {
        let mut bytes = vec![0; content.len() as usize];
        reader
            .read_at(id, 0, &mut bytes)
            .map_err(|error| error.code())?;
    }
    Ok(())
}

#[test]
fn transfers_that_break_or_stall_are_resumed() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let expected = read_all(&plan(&network(&server), &urls[1]).unwrap());
    for url in urls {
        let plan = plan(&network(&server), &url).unwrap();
        for trouble in [
            Trouble::Cut(100_000),
            Trouble::Cut(0),
            Trouble::Stall(1_500_000),
            Trouble::Status(503, "x-why", "busy"),
            Trouble::Status(429, "retry-after", "1"),
        ] {
            server.trouble(SECOND, trouble, 1);
        }
        assert!(read_all(&plan) == expected, "{url}");
    }
}

#[test]
fn a_transfer_that_is_slow_and_moves_is_not_broken_off() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let check = &|way: usize| {
        let (server, urls) = served(&directory, "base");
        let plan = plan(&network(&server), &urls[way]).unwrap();
        server.requests();
        // Longer in all than after which a server without a byte is given up.
        let slow = Trouble::Slow(22, Duration::from_millis(100));
        server.trouble(SECOND, slow, usize::MAX);
        assert!(read_all(&plan) == expected, "{}", urls[way]);
        let requests = server.requests();
        let ranges = requests.iter().filter_map(|it| it.range(usize::MAX));
        // One that is resumed begins within a block.
        assert!(ranges.clone().count() > 0);
        assert!(ranges.into_iter().all(|(from, _)| from % (1 << 20) == 0));
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|way| drop(scope.spawn(move || check(way))));
    });
}

#[test]
fn a_source_that_is_gone_gives_an_error_after_a_stated_time() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    for way in 0..4 {
        let (server, urls) = served(&directory, "base");
        let happen = || server.trouble(SECOND, Trouble::Stall(0), usize::MAX);
        assert_eq!(outcome(&server, &urls[way], happen), Err(Code::Unreachable));
        let gone = urls[way].clone();
        let network = network(&server);
        drop(server);
        assert_eq!(plan(&network, &gone).unwrap_err().code(), Code::Unreachable);
    }
}

#[test]
fn other_content_is_an_error_whatever_the_server_does_with_conditions() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let second = std::fs::read(directory.join(SECOND)).unwrap();
    let mut other = second.clone();
    other.iter_mut().for_each(|byte| *byte ^= 0x55);
    for ignores in [false, true] {
        for (way, place) in [
            (0, "plain/base"),
            (1, "bucket/models/base"),
            (3, "bucket/models/base"),
        ] {
            for content in [&other[..], &second[..second.len() - 1], &[]] {
                let (server, urls) = served(&directory, "base");
                if ignores {
                    server.ignore_if_match();
                }
                let path = format!("{place}/{SECOND}");
                let found = outcome(&server, &urls[way], || server.put(&path, content));
                assert_eq!(found, Err(Code::SourceChanged), "{path}");
                let found = outcome(&server, &urls[way], || server.remove(&path));
                assert!(found.is_err(), "{path}");
            }
            let (server, urls) = served(&directory, "base");
            let path = format!("{place}/{SECOND}");
            let found = outcome(&server, &urls[way], || server.remove(&path));
            assert_eq!(found, Err(Code::SourceChanged), "{path}");
        }
    }
}

#[test]
fn a_reply_that_is_not_the_range_is_an_error() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    for way in 0..4 {
        for trouble in [
            Trouble::Whole,
            Trouble::OtherRange,
            Trouble::RangeAsWhole,
            Trouble::Compressed,
        ] {
            if matches!(way, 1 | 3) && trouble == Trouble::Compressed {
                continue;
            }
            let (server, urls) = served(&directory, "base");
            let plan = plan(&network(&server), &urls[way]).unwrap();
            server.trouble(SECOND, trouble.clone(), usize::MAX);
            // The end of it: a request for all may well be answered with all.
            let mut bytes = vec![0; 1 << 20];
            let shard = &plan.shards[1];
            let found = reader(&plan).read_at(shard.entry, shard.len - (1 << 20), &mut bytes);
            if way == 2 && trouble == Trouble::Whole {
                // The Hub sends small files whole, which are cut here.
                let content = std::fs::read(directory.join(SECOND)).unwrap();
                assert!(bytes[..] == content[content.len() - bytes.len()..]);
                continue;
            }
            let code = found.unwrap_err().code();
            assert_eq!(code, Code::BadReply, "{} {trouble:?}", urls[way]);
        }
    }
}

#[test]
fn what_nothing_pins_is_read_only_if_asked_for() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let (server, urls) = served(&directory, "base");
    server.trouble("", Trouble::NoPin, 0);
    let error = plan(&network(&server), &urls[0]).unwrap_err();
    assert_eq!(error.code(), Code::Unpinned);
    let network = Network::new(NetworkOptions {
        allow_unpinned: true,
        ..options(&server)
    });
    assert!(read_all(&plan(&network.unwrap(), &urls[0]).unwrap()) == expected);
}

#[test]
fn refused_access_says_so_at_once() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    for way in 0..4 {
        let (server, urls) = served(&directory, "base");
        let refuse = Trouble::Status(403, "x-why", "no");
        server.trouble(FIRST, refuse, usize::MAX);
        let found = outcome(&server, &urls[way], || {});
        assert_eq!(found, Err(Code::AccessDenied), "{}", urls[way]);
    }
}

#[test]
fn a_reader_who_waits_can_be_stopped() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let network = Network::new(NetworkOptions {
        give_up: std::time::Duration::from_secs(3600),
        stall: std::time::Duration::from_secs(3600),
        ..options(&server)
    });
    let network = network.unwrap();
    let plan = plan(&network, &urls[0]).unwrap();
    server.trouble(SECOND, Trouble::Stall(10), usize::MAX);
    server.requests();
    let error = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let reader = Reader::new(plan.view.clone(), 1 << 20);
            let shard = &plan.shards[1];
            let mut bytes = vec![0; 3 << 20];
            reader.read_at(shard.entry, shard.len - (3 << 20), &mut bytes)
        });
        while server.requests().is_empty() {
            std::thread::yield_now();
        }
        network.stop();
        reading.join().unwrap().unwrap_err()
    });
    assert_eq!(error.code(), Code::Interrupted);
}

#[test]
fn what_is_in_the_block_cache_is_read_without_the_server_and_checked() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let cached = || {
        let network = Network::new(NetworkOptions {
            block_cache: Some(BlockCacheOptions {
                directory: workspace.path().join("cache"),
                max_bytes: Some(1 << 30),
            }),
            ..options(&server)
        });
        network.unwrap()
    };
    for url in &urls {
        let expected = read_all(&plan(&network(&server), url).unwrap());
        // Written in the background.
        loop {
            assert!(read_all(&plan(&cached(), url).unwrap()) == expected);
            let again = plan(&cached(), url).unwrap();
            server.requests();
            assert!(read_all(&again) == expected);
            let bodies = server
                .requests()
                .into_iter()
                .filter(|request| request.method == "GET");
            if bodies.count() == 0 {
                break;
            }
        }
    }
}

#[test]
fn views_of_urls_are_written_and_verified() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    for (number, url) in urls.iter().enumerate() {
        let plan = plan(&network(&server), url).unwrap();
        let out = workspace.path().join(format!("out-{number}"));
        server.trouble(SECOND, Trouble::Cut(700_000), 2);
        materialize(&plan, &[], &out, &Options::default(), &()).unwrap();
        for name in [FIRST, SECOND, "config.json"] {
            let same = std::fs::read(out.join(name)).unwrap()
                == std::fs::read(directory.join(name)).unwrap();
            assert!(same, "{url} {name}");
        }
        assert_eq!(
            against_view(&plan, &out, 2, &()).unwrap().differences.len(),
            0
        );
    }
}
