//! What comes of a pickle: values that refer to each other by position.

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 64;

/// The position of a value.
pub(in crate::format) type Id = u32;

/// A value of a pickle.
#[derive(Debug)]
pub(in crate::format) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Text(Box<str>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// Keys and values, in the order in which they were set: of a key that was set twice, the last counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function.
    Global(Box<Global>),
    /// Something outside of the pickle, by what it is called there.
    Persistent(Id),
    Object(Box<Object>),
    /// What no tensor depends on: a float, bytes, a set, a very long text or number.
    Other(&'static str),
}

/// A class or function, by its name.
#[derive(Debug)]
pub(in crate::format) struct Global {
    pub module: Box<str>,
    pub name: Box<str>,
}

/// What a call would give.
#[derive(Debug)]
pub(in crate::format) struct Object {
    /// What is called.
    pub callee: Id,
    /// With what, normally a tuple.
    pub arguments: Id,
    /// What was set in it later, as in a dictionary.
    pub items: Vec<(Id, Id)>,
    /// The state that it was given.
    pub state: Option<Id>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(in crate::format) struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

impl Pickle {
    /// What was pickled.
    pub(in crate::format) fn root(&self) -> Id {
        self.root
    }

    pub(in crate::format) fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// All values.
    pub(in crate::format) fn values(&self) -> &[Value] {
        &self.values
    }

    pub(in crate::format) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(in crate::format) fn count(&self, id: Id) -> Option<u64> {
        match self.value(id) {
            Value::Int(int) => u64::try_from(*int).ok(),
            _ => None,
        }
    }

    pub(in crate::format) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(in crate::format) fn list(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub(in crate::format) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.value(id) {
            Value::Global(global) => Some((&global.module, &global.name)),
            _ => None,
        }
    }

    /// What the call that gives `id` is of, and its arguments, if it is one of a global with a tuple.
    pub(in crate::format) fn call(&self, id: Id) -> Option<((&str, &str), &[Id])> {
        match self.value(id) {
            Value::Object(object) => {
                Some((self.global(object.callee)?, self.tuple(object.arguments)?))
            }
            _ => None,
        }
    }

    /// Keys and values that were set in a dictionary.
    pub(in crate::format) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(items) => Some(items),
            Value::Object(object) => match self.global(object.callee)? {
                ("collections", "OrderedDict" | "defaultdict") => Some(&object.items),
                _ => None,
            },
            _ => None,
        }
    }

    /// Keys and values of a dictionary, with those that Python 2 gives when it makes one.
    pub(in crate::format) fn items(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        let set = self.dict(id)?;
        let pairs = match self.call(id) {
            Some((("collections", "OrderedDict"), &[pairs])) => self.list(pairs)?,
            _ => &[],
        };
        let pair = |id: &Id| match self.list(*id).or_else(|| self.tuple(*id))? {
            &[key, value] => Some((key, value)),
            _ => None,
        };
        let given: Option<Vec<(Id, Id)>> = pairs.iter().map(pair).collect();
        Some([&given?, set].concat())
    }

    /// The state that an object was given, or of a tuple of two the second: attributes with and without slots.
    pub(in crate::format) fn state(&self, id: Id) -> Option<Id> {
        let Value::Object(object) = self.value(id) else {
            return None;
        };
        let state = object.state?;
        match self.tuple(state) {
            Some(&[_, attributes]) => Some(attributes),
            _ => Some(state),
        }
    }

    /// The attribute `name` of an object.
    pub(in crate::format) fn attribute(&self, id: Id, name: &str) -> Option<Id> {
        self.entry(self.state(id)?, name)
    }

    /// What the key `name` of a dictionary is set to.
    pub(in crate::format) fn entry(&self, id: Id, name: &str) -> Option<Id> {
        let mut items = self.dict(id)?.iter();
        let &(_, value) = items.rfind(|(key, _)| self.text(*key) == Some(name))?;
        Some(value)
    }

    /// The class of an object, without its module: that has moved between versions of torch.
    pub(in crate::format) fn class(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Object(object) => Some(self.global(object.callee)?.1),
            _ => None,
        }
    }

    /// Numbers that are not negative: a tuple, a list, or a `torch.Size` of one.
    pub(in crate::format) fn counts(&self, id: Id) -> Option<Vec<u64>> {
        let items = match self.call(id) {
            Some((("torch", "Size"), &[items])) => items,
            _ => id,
        };
        let items = self.tuple(items).or_else(|| self.list(items))?;
        if items.len() > MAX_DIMENSIONS {
            return None;
        }
        items.iter().map(|&item| self.count(item)).collect()
    }

    /// What `id` is, for messages.
    pub(in crate::format) fn kind(&self, id: Id) -> String {
        match self.value(id) {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(_) => "an int".to_owned(),
            Value::Text(_) => "a str".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Global(global) => format!("{}.{} itself", global.module, global.name),
            Value::Persistent(_) => "a storage".to_owned(),
            Value::Object(object) => match self.global(object.callee) {
                Some((module, name)) => format!("made by {module}.{name}"),
                None => "an object".to_owned(),
            },
            Value::Other(what) => (*what).to_owned(),
        }
    }
}
