//! Query strings, read strictly: an unknown or repeated parameter is refused, never ignored.

use crate::error::ApiError;
use std::borrow::Cow;
use std::str::FromStr;

/// The parameters of one request, taken out one by one; [`Params::end`] refuses what nobody took.
pub struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    pub fn of(query: Option<&'a str>) -> Self {
        // No allocation for the usual request, which has none.
        Self { pairs: query.map(|q| form_urlencoded::parse(q.as_bytes()).collect()).unwrap_or_default() }
    }

    pub fn take(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(ApiError::field(name, "is given twice"));
        }
        Ok(Some(value))
    }

    /// A parameter of a type that explains itself when it cannot be read.
    pub fn parse<T: FromStr<Err = String>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.take(name)?.map(|text| text.parse().map_err(|message: String| ApiError::field(name, message))).transpose()
    }

    pub fn bool(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::field(name, "must be true or false")),
        }
    }

    pub fn number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(ApiError::field(name, format!("must be a whole number between {min} and {max}"))),
        }
    }

    /// What is left is unknown.
    pub fn end(self) -> Result<(), ApiError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                Err(ApiError::field(shown, "is no parameter of this route"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_took_is_refused() {
        let mut params = Params::of(Some("wait=true&limit=5&x=1"));
        assert!(params.bool("wait").unwrap());
        assert_eq!(params.number("limit", 1, 200).unwrap(), Some(5));
        assert_eq!(params.end().unwrap_err().errors[0].field, "x");
        assert!(Params::of(None).end().is_ok());
    }

    #[test]
    fn wrong_values_name_their_parameter() {
        for query in ["wait=1", "wait=true&wait=true", "wait="] {
            assert_eq!(Params::of(Some(query)).bool("wait").unwrap_err().errors[0].field, "wait", "{query}");
        }
        for query in ["n=0", "n=-1", "n=1.5", "n=99999999999999999999", "n=", "n=x"] {
            assert_eq!(Params::of(Some(query)).number("n", 1, 9).unwrap_err().errors[0].field, "n", "{query}");
        }
    }
}
