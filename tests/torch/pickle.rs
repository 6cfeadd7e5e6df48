//! Pickles, written from what `pickletools` says of each opcode.

/// A value of Python.
#[derive(Debug, Clone)]
pub(crate) enum Py {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Py>),
    List(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    Global(String, String),
    /// What a call gives: a function or class, and its arguments.
    Call(Box<Py>, Box<Py>),
    /// The same where keys are set in it.
    Set(Box<Py>, Vec<(Py, Py)>),
    /// An object that is given a state.
    Build(Box<Py>, Box<Py>),
    Persistent(Box<Py>),
}

pub(crate) fn text(text: &str) -> Py {
    Py::Text(text.to_owned())
}

pub(crate) fn int(int: u64) -> Py {
    Py::Int(int.into())
}

pub(crate) fn ints(ints: &[u64]) -> Py {
    Py::Tuple(ints.iter().map(|&n| int(n)).collect())
}

pub(crate) fn global(module: &str, name: &str) -> Py {
    Py::Global(module.to_owned(), name.to_owned())
}

pub(crate) fn call(module: &str, name: &str, arguments: Vec<Py>) -> Py {
    let function = Box::new(global(module, name));
    Py::Call(function, Box::new(Py::Tuple(arguments)))
}

/// A dictionary with these keys.
pub(crate) fn dict<'a>(items: impl IntoIterator<Item = (&'a str, Py)>) -> Py {
    Py::Dict(keyed(items))
}

fn keyed<'a>(items: impl IntoIterator<Item = (&'a str, Py)>) -> Vec<(Py, Py)> {
    items
        .into_iter()
        .map(|(key, value)| (text(key), value))
        .collect()
}

/// What `state_dict()` gives: an OrderedDict with a `_metadata`.
pub(crate) fn ordered_dict<'a>(items: impl IntoIterator<Item = (&'a str, Py)>) -> Py {
    let made = call("collections", "OrderedDict", Vec::new());
    let metadata = dict([("", dict([("version", int(1))]))]);
    let state = dict([("_metadata", metadata)]);
    Py::Build(
        Box::new(Py::Set(Box::new(made), keyed(items))),
        Box::new(state),
    )
}

/// The pickle of `value` in a protocol of 0, 2, 4 or 5.
pub(crate) fn dump(value: &Py, protocol: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if protocol >= 2 {
        bytes.extend([0x80, protocol]);
    }
    value.write(protocol, &mut bytes);
    bytes.push(b'.');
    bytes
}

impl Py {
    fn write(&self, protocol: u8, out: &mut Vec<u8>) {
        let is_text = protocol == 0;
        match self {
            Py::None => out.push(b'N'),
            Py::Bool(value) if is_text => out.extend(format!("I0{}\n", u8::from(*value)).bytes()),
            Py::Bool(value) => out.push(if *value { 0x88 } else { 0x89 }),
            Py::Int(int) if is_text => {
                let (opcode, end) = if *int >> 31 == 0 {
                    ("I", "")
                } else {
                    ("L", "L")
                };
                out.extend(format!("{opcode}{int}{end}\n").bytes());
            }
            Py::Int(int) => match u8::try_from(*int) {
                Ok(byte) => out.extend([b'K', byte]),
                Err(_) => match (u16::try_from(*int), i32::try_from(*int)) {
                    (Ok(short), _) => {
                        out.push(b'M');
                        out.extend(short.to_le_bytes());
                    }
                    (_, Ok(int)) => {
                        out.push(b'J');
                        out.extend(int.to_le_bytes());
                    }
                    _ => {
                        out.extend([0x8a, 16]);
                        out.extend(int.to_le_bytes());
                    }
                },
            },
            Py::Float(float) if is_text => out.extend(format!("F{float:?}\n").bytes()),
            Py::Float(float) => {
                out.push(b'G');
                out.extend(float.to_be_bytes());
            }
            Py::Text(text) if is_text => {
                out.push(b'V');
                for c in text.chars() {
                    match c {
                        '\\' | '\n' => out.extend(format!("\\u{:04x}", c as u32).bytes()),
                        c if (c as u32) < 256 => out.push(c as u8),
                        c => out.extend(format!("\\U{:08x}", c as u32).bytes()),
                    }
                }
                out.push(b'\n');
            }
            Py::Text(text) if protocol >= 4 && text.len() < 256 => {
                out.extend([0x8c, text.len() as u8]);
                out.extend(text.bytes());
                out.push(0x94);
            }
            Py::Text(text) => {
                out.push(b'X');
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.bytes());
            }
            Py::Bytes(bytes) => {
                assert!(protocol >= 3, "bytes came with protocol 3");
                out.push(b'B');
                out.extend((bytes.len() as u32).to_le_bytes());
                out.extend(bytes);
            }
            Py::Tuple(items) if items.is_empty() && !is_text => out.push(b')'),
            Py::Tuple(items) if items.len() <= 3 && !is_text => {
                items.iter().for_each(|item| item.write(protocol, out));
                out.push(0x84 + items.len() as u8);
            }
            Py::Tuple(items) => {
                out.push(b'(');
                items.iter().for_each(|item| item.write(protocol, out));
                out.push(b't');
            }
            Py::List(items) if is_text => {
                out.extend(b"(l");
                for item in items {
                    item.write(protocol, out);
                    out.push(b'a');
                }
            }
            Py::List(items) => {
                out.extend(b"](");
                items.iter().for_each(|item| item.write(protocol, out));
                out.push(b'e');
            }
            Py::Dict(items) => {
                out.extend(if is_text { &b"(d"[..] } else { b"}" });
                set(items, protocol, out);
            }
            Py::Global(module, name) if protocol >= 4 => {
                text(module).write(protocol, out);
                text(name).write(protocol, out);
                out.push(0x93);
            }
            Py::Global(module, name) => out.extend(format!("c{module}\n{name}\n").bytes()),
            Py::Call(function, arguments) => {
                function.write(protocol, out);
                arguments.write(protocol, out);
                out.push(b'R');
            }
            Py::Set(object, items) => {
                object.write(protocol, out);
                set(items, protocol, out);
            }
            Py::Build(object, state) => {
                object.write(protocol, out);
                state.write(protocol, out);
                out.push(b'b');
            }
            Py::Persistent(name) => {
                name.write(protocol, out);
                out.push(b'Q');
            }
        }
    }
}

fn set(items: &[(Py, Py)], protocol: u8, out: &mut Vec<u8>) {
    let by_one = protocol == 0;
    if !by_one {
        out.push(b'(');
    }
    for (key, value) in items {
        key.write(protocol, out);
        value.write(protocol, out);
        if by_one {
            out.push(b's');
        }
    }
    if !by_one {
        out.push(b'u');
    }
}
