//! What somebody asks to quantize in: a scheme by its name, with options and a dialect.

use std::fmt;
use std::str::FromStr;

use crate::error::setting::{ALLOW_ROUNDING, DIALECT, PARTIAL_BLOCKS, SCALE_FORMAT, SCHEME};
use crate::error::{Code, Error, Hint, Result};
use crate::named::Named;
use crate::quant::offer::{EncodingSettings, Offer};
use crate::quant::scheme::Encoding;
use crate::quant::schemes::ENCODINGS;
use crate::spelling::did_you_mean;

/// A scheme that views can be quantized in, by its name and options: `int4:group=32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeRequest(String);

impl Default for SchemeRequest {
    fn default() -> Self {
        SchemeRequest(ENCODINGS[0].name.to_owned())
    }
}

impl fmt::Display for SchemeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SchemeRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let request = SchemeRequest(text.to_ascii_lowercase());
        let (offer, options) = request.offer()?;
        let made = (offer.make)(&options, &EncodingSettings::default());
        made.map_err(|problem| Error::new(Code::BadValue, problem).about_value(SCHEME, text))?;
        Ok(request)
    }
}

impl SchemeRequest {
    /// The names of all schemes, with the options that each may have.
    pub fn known() -> impl Iterator<Item = String> {
        ENCODINGS
            .iter()
            .map(|offer| [offer.name, offer.options].concat())
    }

    /// Whether its scales have a format to choose, in the dialect that is usual.
    pub fn has_scale_format(&self) -> bool {
        self.offer().is_ok_and(|(offer, _)| offer.has_scale_format)
    }

    /// Whether it takes blocks that are cut off at an edge.
    pub fn has_partial_blocks(&self) -> bool {
        self.offer()
            .is_ok_and(|(offer, _)| offer.has_partial_blocks)
    }

    fn offer(&self) -> Result<(&'static Offer, Vec<&str>)> {
        let (name, options) = self.0.split_once(':').unwrap_or((&self.0, ""));
        let offer = ENCODINGS.iter().find(|offer| offer.name == name);
        let offer = offer.ok_or_else(|| {
            let known: Vec<String> = Self::known().collect();
            let names = ENCODINGS.iter().map(|offer| offer.name);
            let problem = format!(
                "{name} is none of {}{}",
                known.join(", "),
                did_you_mean(name, names)
            );
            Error::new(Code::BadValue, problem)
        })?;
        let options = options
            .split([',', ':'])
            .filter(|option| !option.is_empty());
        Ok((offer, options.collect()))
    }

    /// How to quantize so.
    ///
    /// # Errors
    /// If `settings` do not go with the scheme.
    pub fn encoding(&self, settings: &EncodingSettings) -> Result<Box<dyn Encoding>> {
        let (offer, options) = self.offer()?;
        let refuse = |setting, problem| {
            Err(Error::new(Code::Conflict, problem).with_hint(Hint::leave_out(setting)))
        };
        let usual = offer.dialects[0];
        let dialect = settings.dialect.unwrap_or(usual);
        if !offer.dialects.contains(&dialect) {
            let known: Vec<&str> = offer.dialects.iter().map(|d| d.name()).collect();
            let problem = format!(
                "{} has no dialect {}, but {}",
                offer.name,
                dialect.name(),
                known.join(" and ")
            );
            return refuse(DIALECT, problem);
        }
        if settings.scale_format.is_some() && !(offer.has_scale_format && dialect == usual) {
            let problem = format!(
                "{} in the dialect {} has no format of scales to choose",
                offer.name,
                dialect.name()
            );
            return refuse(SCALE_FORMAT, problem);
        }
        if settings.says_partial_blocks && !offer.has_partial_blocks {
            let problem = format!("{} has no partial blocks", offer.name);
            return refuse(PARTIAL_BLOCKS, problem);
        }
        if settings.allows_rounding && !offer.has_partial_blocks {
            let problem = format!("{} rounds in any case", offer.name);
            return refuse(ALLOW_ROUNDING, problem);
        }
        let settings = EncodingSettings {
            dialect: Some(dialect),
            ..*settings
        };
        (offer.make)(&options, &settings)
            .map_err(|problem| Error::new(Code::BadValue, problem).about_value(SCHEME, &*self.0))
    }
}
