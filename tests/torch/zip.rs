//! Zip archives, written field by field, so that each can lie.

/// An entry, and what its headers say of it where that is not the truth.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    /// The length in the central directory.
    pub(crate) len: Option<u64>,
    /// The length in the local header.
    pub(crate) local_len: Option<u64>,
    pub(crate) local_name: Option<String>,
    pub(crate) local_method: Option<u16>,
    /// Where the central directory says that the local header is.
    pub(crate) header: Option<u64>,
    /// Lengths come after the data, and this is what is said there.
    pub(crate) descriptor: Option<u64>,
    /// Bytes of a field before the data.
    pub(crate) padding: u16,
    /// Lengths are in a zip64 field.
    pub(crate) large: bool,
}

/// An archive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zip {
    pub(crate) entries: Vec<Entry>,
    /// Whether it has the zip64 end record.
    pub(crate) large: bool,
    pub(crate) comment: String,
    /// The number of entries that the end record gives.
    pub(crate) count: Option<u16>,
    /// Bytes that come before the central directory, and belong to nothing.
    pub(crate) gap: usize,
}

impl Zip {
    pub(crate) fn entry(mut self, name: &str, data: impl Into<Vec<u8>>) -> Self {
        self.entries.push(Entry {
            name: name.to_owned(),
            data: data.into(),
            ..Entry::default()
        });
        self
    }

    /// The entry called `name`.
    pub(crate) fn get(&mut self, name: &str) -> &mut Entry {
        let mut entries = self.entries.iter_mut();
        entries
            .find(|entry| entry.name == name)
            .expect("there is such an entry")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut directory = Vec::new();
        for entry in &self.entries {
            let at = out.len() as u64;
            entry.write(&mut out);
            entry.write_directory(entry.header.unwrap_or(at), &mut directory);
        }
        out.extend(vec![0; self.gap]);
        let start = out.len() as u64;
        out.extend(&directory);
        let count = self.count.unwrap_or(self.entries.len() as u16);
        if self.large {
            let record = out.len() as u64;
            out.extend(b"PK\x06\x06");
            out.extend(44u64.to_le_bytes());
            out.extend([45, 0, 45, 0]);
            out.extend([0; 8]);
            out.extend(u64::from(count).to_le_bytes());
            out.extend(u64::from(count).to_le_bytes());
            out.extend((directory.len() as u64).to_le_bytes());
            out.extend(start.to_le_bytes());
            out.extend(b"PK\x06\x07");
            out.extend([0; 4]);
            out.extend(record.to_le_bytes());
            out.extend(1u32.to_le_bytes());
        }
        let small = |number: u64| if self.large { u32::MAX } else { number as u32 };
        out.extend(b"PK\x05\x06");
        out.extend([0; 4]);
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(small(directory.len() as u64).to_le_bytes());
        out.extend(small(start).to_le_bytes());
        out.extend((self.comment.len() as u16).to_le_bytes());
        out.extend(self.comment.bytes());
        out
    }
}

impl Entry {
    fn flags(&self) -> u16 {
        self.flags | if self.descriptor.is_some() { 8 } else { 0 }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let truth = if self.descriptor.is_some() {
            0
        } else {
            self.data.len() as u64
        };
        let len = self.local_len.unwrap_or(truth);
        let name = self.local_name.as_ref().unwrap_or(&self.name);
        let mut extra = Vec::new();
        if self.large {
            extra.extend([1, 0, 16, 0]);
            extra.extend(len.to_le_bytes());
            extra.extend(len.to_le_bytes());
        }
        if self.padding > 0 {
            extra.extend(b"FB");
            extra.extend(self.padding.to_le_bytes());
            extra.extend(vec![b'Z'; self.padding.into()]);
        }
        out.extend(b"PK\x03\x04\0\0");
        out.extend(self.flags().to_le_bytes());
        out.extend(self.local_method.unwrap_or(self.method).to_le_bytes());
        out.extend([0; 8]);
        let small = if self.large { u32::MAX } else { len as u32 };
        out.extend(small.to_le_bytes());
        out.extend(small.to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend(name.bytes());
        out.extend(extra);
        out.extend(&self.data);
        if let Some(len) = self.descriptor {
            out.extend(b"PK\x07\x08\0\0\0\0");
            if self.large {
                out.extend(len.to_le_bytes());
                out.extend(len.to_le_bytes());
            } else {
                out.extend((len as u32).to_le_bytes());
                out.extend((len as u32).to_le_bytes());
            }
        }
    }

    fn write_directory(&self, header: u64, out: &mut Vec<u8>) {
        let len = self.len.unwrap_or(self.data.len() as u64);
        let mut extra = Vec::new();
        if self.large {
            extra.extend([1, 0, 24, 0]);
            extra.extend(len.to_le_bytes());
            extra.extend(len.to_le_bytes());
            extra.extend(header.to_le_bytes());
        }
        let small = |number: u64| if self.large { u32::MAX } else { number as u32 };
        out.extend(b"PK\x01\x02\0\0\0\0");
        out.extend(self.flags().to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0; 8]);
        out.extend(small(len).to_le_bytes());
        out.extend(small(len).to_le_bytes());
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend([0; 12 - 2]);
        out.extend(small(header).to_le_bytes());
        out.extend(self.name.bytes());
        out.extend(extra);
    }
}
