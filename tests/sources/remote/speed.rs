//! Requests are few, large and many at once; nothing is timed here.

use std::time::Duration;

use ckptfs::source::remote::{Network, NetworkOptions};

use super::{network, options, plan, served};
use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;

#[test]
fn headers_of_a_thousand_shards_are_read_with_one_request_each_and_many_at_once() {
    const SHARDS: usize = 1000;
    const AT_ONCE: usize = 64;
    let workspace = Workspace::new();
    let mut checkpoint = Checkpoint::new();
    for number in 1..=SHARDS {
        let name = format!("model-{number:05}-of-{SHARDS:05}.safetensors");
        checkpoint = checkpoint.shard(&name, [bf16(&format!("w{number}"), &[2, 4])]);
    }
    let (server, urls) = served(&workspace.write("base", &checkpoint), "base");
    // However long replies take, as many requests wait for them together.
    server.gather(AT_ONCE);
    let patient = NetworkOptions {
        stall: Duration::from_secs(60),
        give_up: Duration::from_secs(60),
        ..options(&server)
    };
    plan(&Network::new(patient).unwrap(), &urls[1]).unwrap();
    let requests = server.requests();
    let headers = requests
        .iter()
        .filter(|it| it.path.ends_with(".safetensors"));
    assert_eq!(headers.count(), SHARDS);
    // Two pages of the listing, the index and config.json.
    assert!(requests.len() <= SHARDS + 5, "{}", requests.len());

    // The Hub leads to another server.
    plan(&network(&server), &urls[2]).unwrap();
    assert!(server.requests().len() <= 2 * SHARDS + 6);
}

#[test]
fn a_file_that_is_read_from_front_to_back_is_fetched_once_and_never_by_less_than_a_block() {
    let workspace = Workspace::new();
    let directory = workspace.write(
        "big",
        &Checkpoint::single([bf16("w", &[24 << 10, 1 << 10])]),
    );
    let len = std::fs::metadata(directory.join("model.safetensors"))
        .unwrap()
        .len();
    let (server, urls) = served(&directory, "big");
    let expected = read_all(&ckptfs::recipe::ViewRequest::new(&directory).plan().unwrap());
    let network = Network::new(NetworkOptions {
        memory: 32 << 20,
        ..options(&server)
    });
    let view = plan(&network.unwrap(), &urls[1]).unwrap();
    server.requests();
    let reader = crate::common::readback::reader(&view);
    let shard = &view.shards[0];
    let path = std::path::Path::new("model.safetensors");
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let count = reader.read_at(shard.entry, at, &mut bytes).unwrap();
        assert!(bytes[..count] == expected[path][at as usize..at as usize + count]);
        at += count as u64;
    }
    let ranges = server.requests().into_iter().filter_map(|request| {
        let (from, to) = request
            .headers
            .get("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some(to.parse::<u64>().unwrap() + 1 - from.parse::<u64>().unwrap())
    });
    let ranges: Vec<u64> = ranges.collect();
    let fetched: u64 = ranges.iter().sum();
    assert!(fetched <= len + (1 << 20), "{fetched} of {len}");
    assert!(ranges.len() as u64 <= 8 + len / (1 << 20), "{ranges:?}");
}
