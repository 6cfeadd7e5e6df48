//! Values of metadata. Vocabularies have hundreds of thousands of elements, so those of an array are kept together:
//! numbers as the bytes of the file, strings as one text and where each of them ends.

use super::value_type::ValueType;

/// A value of metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The integer that it is, of whichever integer type, unless it is negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U8(value) => Some((*value).into()),
            Value::U16(value) => Some((*value).into()),
            Value::U32(value) => Some((*value).into()),
            Value::U64(value) => Some(*value),
            Value::I8(value) => u64::try_from(*value).ok(),
            Value::I16(value) => u64::try_from(*value).ok(),
            Value::I32(value) => u64::try_from(*value).ok(),
            Value::I64(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The floating-point number that it is.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F32(value) => Some((*value).into()),
            Value::F64(value) => Some(*value),
            _ => None,
        }
    }

    /// The truth value that it is.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The array that it is.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(value) => Some(value),
            _ => None,
        }
    }
}

/// An array of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    Numbers(Numbers),
    Strings(Strings),
}

/// Numbers, or truth values, as the little-endian bytes of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    element: ValueType,
    bytes: Vec<u8>,
}

/// Strings, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Array {
    /// The type of its elements.
    pub fn element(&self) -> ValueType {
        match self {
            Array::Numbers(numbers) => numbers.element,
            Array::Strings(_) => ValueType::String,
        }
    }

    /// How many elements it has.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Array::Numbers(numbers) => numbers.len(),
            Array::Strings(strings) => strings.len(),
        }
    }

    /// The strings that it is of.
    pub fn strings(&self) -> Option<&Strings> {
        match self {
            Array::Strings(strings) => Some(strings),
            Array::Numbers(_) => None,
        }
    }

    /// The numbers that it is of.
    pub fn numbers(&self) -> Option<&Numbers> {
        match self {
            Array::Numbers(numbers) => Some(numbers),
            Array::Strings(_) => None,
        }
    }
}

impl Numbers {
    /// `bytes` as elements of type `element`.
    ///
    /// # Panics
    /// If they are no whole number of elements, or such elements are no numbers.
    pub(super) fn new(element: ValueType, bytes: Vec<u8>) -> Self {
        let width = element.width().expect("elements of one width");
        assert!(
            bytes.len().is_multiple_of(width),
            "whole elements of {element:?}"
        );
        Numbers { element, bytes }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width()
    }

    /// The bytes of all of them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn width(&self) -> usize {
        self.element.width().expect("elements of one width")
    }

    /// Each as a value.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value> {
        self.bytes
            .chunks_exact(self.width())
            .map(|bytes| number(self.element, bytes).expect("elements of this type"))
    }
}

/// The number of type `element` that `bytes` are, which are as many as it has.
pub(super) fn number(element: ValueType, bytes: &[u8]) -> Option<Value> {
    Some(match element {
        ValueType::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::Bool => Value::Bool(bytes != [0]),
        ValueType::String | ValueType::Array => return None,
    })
}

impl Strings {
    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds `text`.
    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    /// Each as its bytes. They should be UTF-8, but nobody looked.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let text = &self.bytes[start..end];
            start = end;
            text
        })
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Strings {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut strings = Strings::default();
        for text in texts {
            strings.push(text.as_ref());
        }
        strings
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Array {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        Array::Strings(texts.into_iter().collect())
    }
}

/// A number that arrays have.
pub trait Number: Copy {
    /// What type it is in files.
    const TYPE: ValueType;

    /// Adds its bytes.
    fn push_to(self, bytes: &mut Vec<u8>);
}

macro_rules! number_types {
    ($($rust:ty = $type:ident),+) => {
        $(impl Number for $rust {
            const TYPE: ValueType = ValueType::$type;

            fn push_to(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        })+
    };
}

number_types!(
    u8 = U8,
    i8 = I8,
    u16 = U16,
    i16 = I16,
    u32 = U32,
    i32 = I32,
    f32 = F32,
    u64 = U64,
    i64 = I64,
    f64 = F64
);

impl Number for bool {
    const TYPE: ValueType = ValueType::Bool;

    fn push_to(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }
}

impl<T: Number> From<&[T]> for Array {
    fn from(numbers: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(size_of_val(numbers));
        for number in numbers {
            number.push_to(&mut bytes);
        }
        Array::Numbers(Numbers::new(T::TYPE, bytes))
    }
}
