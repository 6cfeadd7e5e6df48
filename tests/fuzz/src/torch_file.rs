//! Files of torch around a pickle, with two storages: 0 of 12 floats, 1 of 16 bytes.

/// A pickle of a tensor: storage 0, as a matrix of three rows.
pub const TENSOR: &[u8] = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x0ctQK\0K\x03K\x04\x86K\x04K\x01\x86\x89NtR.";

const FLOATS: [u8; 48] = [0x21; 48];
const BYTES: [u8; 16] = [0x43; 16];

/// A zip archive with `pickle`.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    let entries = [
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", &FLOATS),
        ("a/data/1", &BYTES),
    ];
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let at = (file.len() as u32).to_le_bytes();
        let len = (data.len() as u32).to_le_bytes();
        let common = [&[0; 4][..], &[0; 8], &len, &len, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        // Flags, method, time and checksum are 0.
        file.extend([b"PK\x03\x04\0\0", &common[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0\0\0", &common[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let start = (file.len() as u32).to_le_bytes();
    let len = (directory.len() as u32).to_le_bytes();
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0\x04\0\x04\0", &len[..], &start, &[0, 0]].concat());
    file
}

/// A legacy file that has saved `pickle`.
pub fn legacy(pickle: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(b"\x80\x02}X\r\0\0\0little_endian\x88s.");
    file.extend(pickle);
    file.extend(b"\x80\x02](X\x01\0\0\x000X\x01\0\0\x001e.");
    for (count, data) in [(12u64, &FLOATS[..]), (16, &BYTES)] {
        file.extend(count.to_le_bytes());
        file.extend(data);
    }
    file
}
