//! The opcodes of pickles, and what each does to the stack.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::torch::pickle::input::Input;
use crate::format::torch::pickle::text;
use crate::format::torch::pickle::value::{Global, Id, Object, Pickle, Value};

/// Reads the pickle that begins where `input` is, up to its end.
///
/// # Errors
/// If it is not a pickle, or larger than what is read.
pub(in crate::format) fn load(input: &mut Input) -> Result<Pickle> {
    input.begin();
    let mut machine = Machine {
        input,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while !machine.step()? {}
    let root = machine.pop()?;
    let values = machine.values;
    Ok(Pickle { values, root })
}

struct Machine<'a, 'b> {
    input: &'a mut Input<'b>,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Where on the stack marks are.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_, '_> {
    /// Does what the next opcode says; whether it was the last.
    fn step(&mut self) -> Result<bool> {
        let [opcode] = self.input.array()?;
        match opcode {
            // PROTO, FRAME, STOP
            0x80 => match self.input.array()? {
                [0..=5] => {}
                [version] => return self.refuse(&format!("protocol {version} is not known")),
            },
            0x95 => self.length8().map(|_| ())?,
            b'.' => return Ok(true),

            // Constants and numbers.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let int = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(int.into()))?;
            }
            b'K' => {
                let int = u8::from_le_bytes(self.input.array()?);
                self.push(Value::Int(int.into()))?;
            }
            b'M' => {
                let int = u16::from_le_bytes(self.input.array()?);
                self.push(Value::Int(int.into()))?;
            }
            b'I' | b'L' => self.decimal(opcode)?,
            0x8a => {
                let len = self.length1()?;
                self.long(len)?;
            }
            0x8b => {
                let len = self.length4()?;
                self.long(len)?;
            }
            b'F' => {
                self.input.line()?;
                self.push(FLOAT)?;
            }
            b'G' => {
                self.input.skip(8)?;
                self.push(FLOAT)?;
            }

            // Text and bytes. Those of Python 2 (T, U, S) are text to torch.
            b'U' | 0x8c => {
                let len = self.length1()?;
                self.text(len)?;
            }
            b'T' | b'X' => {
                let len = self.length4()?;
                self.text(len)?;
            }
            0x8d => {
                let len = self.length8()?;
                self.text(len)?;
            }
            b'S' => self.line_of(text::quoted)?,
            b'V' => self.line_of(text::raw_unicode)?,
            b'C' => {
                let len = self.length1()?;
                self.bytes(len)?;
            }
            b'B' => {
                let len = self.length4()?;
                self.bytes(len)?;
            }
            0x8e | 0x96 => {
                let len = self.length8()?;
                self.bytes(len)?;
            }

            // The stack.
            b'(' => self.mark()?,
            b'0' if self.stack.len() == self.fence() => {
                self.pop_mark()?;
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.put_on(top)?;
            }

            // Containers.
            b')' => self.push(Value::Tuple([].into()))?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items.into()))?;
            }
            0x85..=0x87 => {
                let mut items = [0; 3];
                let count = usize::from(opcode - 0x84);
                for item in items[..count].iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push(Value::Tuple(items[..count].into()))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items)?;
            }
            0x8f => self.push(SET)?,
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(SET)?;
            }

            // The memo.
            b'p' | b'g' => {
                let line = self.input.line()?.unwrap_or_default();
                let Some(Value::Int(key)) = text::number(&line) else {
                    return self.refuse("the memo has no such place");
                };
                let key = u64::try_from(key).unwrap_or(u64::MAX);
                self.memo(key, opcode == b'p')?;
            }
            b'q' | b'h' => {
                let key = self.length1()?;
                self.memo(key, opcode == b'q')?;
            }
            b'r' | b'j' => {
                let key = self.length4()?;
                self.memo(key, opcode == b'r')?;
            }
            0x94 => self.memo(self.memo.len() as u64, true)?,

            // What would be imported, called and made.
            b'c' => {
                let global = self.global_lines()?;
                self.push(global)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match [module, name].map(|id| &self.values[id as usize]) {
                    [Value::Text(module), Value::Text(name)] => Global {
                        module: module.clone(),
                        name: name.clone(),
                    },
                    _ => return self.refuse("the name of a class or function is not text"),
                };
                self.push(Value::Global(Box::new(global)))?;
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.object(callee, arguments)?;
            }
            0x92 => {
                let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(callee, arguments)?;
            }
            b'i' => {
                let global = self.global_lines()?;
                let arguments = self.pop_mark()?;
                let callee = self.add(global)?;
                let arguments = self.add(Value::Tuple(arguments.into()))?;
                self.object(callee, arguments)?;
            }
            b'o' => {
                let all = self.pop_mark()?;
                let Some((&callee, arguments)) = all.split_first() else {
                    return self.refuse("an object is made of no class");
                };
                let arguments = self.add(Value::Tuple(arguments.into()))?;
                self.object(callee, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                if let Value::Object(object) = &mut self.values[top as usize] {
                    object.state = Some(state);
                }
            }
            b'P' => {
                let line = self.input.line()?;
                let name = line.and_then(|line| String::from_utf8(line).ok());
                let name = self.add(name.map_or(TEXT, |name| Value::Text(name.into())))?;
                self.push(Value::Persistent(name))?;
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))?;
            }
            0x82..=0x84 => return self.refuse("it needs the registry of a Python program"),
            0x97 | 0x98 => return self.refuse("it needs a buffer that is not in it"),
            _ => return self.refuse(&format!("there is no opcode {opcode:#04x}")),
        }
        Ok(false)
    }

    fn refuse<T>(&self, problem: &str) -> Result<T> {
        Err(self.input.error(problem))
    }

    fn length1(&mut self) -> Result<u64> {
        Ok(u8::from_le_bytes(self.input.array()?).into())
    }

    fn length4(&mut self) -> Result<u64> {
        Ok(u32::from_le_bytes(self.input.array()?).into())
    }

    fn length8(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.input.array()?))
    }

    /// Keeps `value`.
    fn add(&mut self, value: Value) -> Result<Id> {
        if self.values.len() == self.input.limits.values {
            return Err(self
                .input
                .over_limit(self.input.limits.values as u64, "values"));
        }
        self.values.push(value);
        Ok((self.values.len() - 1) as Id)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let id = self.add(value)?;
        self.put_on(id)
    }

    /// Puts a value on the stack that is kept already.
    fn put_on(&mut self, id: Id) -> Result<()> {
        if self.stack.len() == self.input.limits.values {
            return Err(self
                .input
                .over_limit(self.input.limits.values as u64, "values on its stack"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() == self.input.limits.values {
            return Err(self
                .input
                .over_limit(self.input.limits.values as u64, "marks on its stack"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// The height of the stack at the last mark: nothing below can be taken.
    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.fence() => Ok(top),
            _ => self.refuse("its stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// What is on the stack from the last mark on.
    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.refuse("its stack has no mark"),
        }
    }

    fn memo(&mut self, key: u64, is_put: bool) -> Result<()> {
        if is_put {
            let top = self.top()?;
            self.memo.insert(key, top);
            return Ok(());
        }
        match self.memo.get(&key) {
            Some(&id) => self.put_on(id),
            None => self.refuse("the memo has no such place"),
        }
    }

    /// A number in decimal, or a bool, which protocol 0 writes as `00` and `01`.
    fn decimal(&mut self, opcode: u8) -> Result<()> {
        let Some(line) = self.input.line()? else {
            return self.push(LONG);
        };
        let digits = match opcode {
            b'L' => line.strip_suffix(b"L").unwrap_or(&line),
            _ => &line,
        };
        let value = match (opcode, digits) {
            (b'I', b"00") => Some(Value::Bool(false)),
            (b'I', b"01") => Some(Value::Bool(true)),
            _ => text::number(digits),
        };
        match value {
            Some(value) => self.push(value),
            None => self.refuse("this is not a number"),
        }
    }

    /// A number of `len` bytes in two's complement.
    fn long(&mut self, len: u64) -> Result<()> {
        if len > 16 {
            self.input.skip(len)?;
            return self.push(LONG);
        }
        let bytes = self.input.take(len as usize)?;
        let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if sign { 0xff } else { 0 }; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i128::from_le_bytes(all)))
    }

    fn text(&mut self, len: u64) -> Result<()> {
        if len > Input::MAX_TEXT as u64 {
            self.input.skip(len)?;
            return self.push(TEXT);
        }
        let text = std::str::from_utf8(self.input.take(len as usize)?);
        let value = text.map_or(BYTES, |text| Value::Text(text.into()));
        self.push(value)
    }

    fn line_of(&mut self, text: fn(&[u8]) -> Option<String>) -> Result<()> {
        let text = self.input.line()?.and_then(|line| text(&line));
        self.push(text.map_or(TEXT, |text| Value::Text(text.into())))
    }

    fn bytes(&mut self, len: u64) -> Result<()> {
        self.input.skip(len)?;
        self.push(BYTES)
    }

    fn global_lines(&mut self) -> Result<Value> {
        let lines = [self.input.line()?, self.input.line()?];
        let [module, name] = lines.map(|line| String::from_utf8(line?).ok());
        match (module, name) {
            (Some(module), Some(name)) => Ok(Value::Global(Box::new(Global {
                module: module.into(),
                name: name.into(),
            }))),
            _ => self.refuse("the name of a class or function is not text"),
        }
    }

    fn object(&mut self, callee: Id, arguments: Id) -> Result<()> {
        self.push(Value::Object(Box::new(Object {
            callee,
            arguments,
            items: Vec::new(),
            state: None,
        })))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(list) => list.extend(items),
            // A list of some other class.
            Value::Object(_) | Value::Other(_) => {}
            _ => return self.refuse("items are added to something that is not a list"),
        }
        Ok(())
    }

    /// Sets keys and values by turns.
    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        if !items.len().is_multiple_of(2) {
            return self.refuse("a key of a dictionary has no value");
        }
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(dict) => dict.extend(pairs),
            Value::Object(object) => object.items.extend(pairs),
            _ => return self.refuse("a key is set in something that is not a dictionary"),
        }
        Ok(())
    }
}

const FLOAT: Value = Value::Other("a float");
const LONG: Value = Value::Other("a long int");
const BYTES: Value = Value::Other("bytes");
const TEXT: Value = Value::Other("a long text");
const SET: Value = Value::Other("a set");
