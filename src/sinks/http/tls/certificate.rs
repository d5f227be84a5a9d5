//! The two things in a certificate that the TLS library does not tell: all its alternative names, and when it is valid.
//!
//! What is read was sent by a client: every length is checked, and whatever does not fit is no certificate.

use std::net::{Ipv4Addr, Ipv6Addr};

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// What is of interest in a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// DNS names, mail addresses, IP addresses and URIs, as they are written.
    pub(super) names: Vec<String>,
    /// The first and the last second in which it is valid, since the epoch.
    pub(super) valid: (i64, i64),
}

impl Certificate {
    /// Reads a certificate in DER.
    pub(super) fn parse(der: &[u8]) -> Option<Certificate> {
        let mut certificate = Der(Der(der).expect(SEQUENCE)?);
        let mut fields = Der(certificate.expect(SEQUENCE)?);
        fields.optional(VERSION);
        fields.expect(INTEGER)?;
        fields.expect(SEQUENCE)?;
        fields.expect(SEQUENCE)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let valid = (time(validity.next()?)?, time(validity.next()?)?);
        fields.expect(SEQUENCE)?;
        fields.expect(SEQUENCE)?;
        let mut names = Vec::new();
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                names = alternative_names(Der(content).expect(SEQUENCE)?)?;
            }
        }
        Some(Certificate { names, valid })
    }
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Der(extensions);
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        let (mut tag, mut content) = extension.next()?;
        if tag != OCTET_STRING {
            // Whether it is critical stands in between.
            (tag, content) = extension.next()?;
        }
        if tag != OCTET_STRING {
            return None;
        }
        let mut names = Vec::new();
        let mut general_names = Der(Der(content).expect(SEQUENCE)?);
        while !general_names.0.is_empty() {
            let (tag, content) = general_names.next()?;
            names.extend(name(tag, content));
        }
        return Some(names);
    }
    Some(Vec::new())
}

fn name(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        EMAIL | DNS | URI => String::from_utf8(content.to_vec()).ok(),
        IP_ADDRESS => {
            let v4 = <[u8; 4]>::try_from(content).map(|octets| Ipv4Addr::from(octets).to_string());
            let v6 = <[u8; 16]>::try_from(content).map(|octets| Ipv6Addr::from(octets).to_string());
            v4.or(v6).ok()
        }
        _ => None,
    }
}

/// Seconds since the epoch of 261122120000Z, in which years below 50 belong to this century, or 20261122120000Z.
fn time((tag, content): (u8, &[u8])) -> Option<i64> {
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |index: usize| rest[2 * index..2 * index + 2].parse::<i64>().ok();
    let days = days_since_epoch(year, part(0)?, part(1)?);
    Some(((days * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
}

/// Days from 1970-01-01 in the Gregorian calendar, whose years are counted from March so that the leap day is last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            // A handshake has less than 16 MB.
            if count == 0 || count > 3 {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(count)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    fn optional(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut der = vec![tag];
        if length < 0x80 {
            der.push(length as u8);
        } else {
            der.extend([0x82, (length >> 8) as u8, length as u8]);
        }
        der.extend(content);
        der
    }

    fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
        element(SEQUENCE, &parts.concat())
    }

    fn certificate() -> Vec<u8> {
        let names = sequence(&[
            element(DNS, b"host.example"),
            element(EMAIL, b"me@host.example"),
            element(URI, b"spiffe://cluster/prometheus"),
            element(IP_ADDRESS, &[192, 0, 2, 1]),
            element(IP_ADDRESS, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            element(IP_ADDRESS, &[1, 2, 3]),
            element(0xa0, b"other"),
        ]);
        let extensions = sequence(&[
            sequence(&[element(OBJECT_IDENTIFIER, &[0x55, 0x1d, 0x0f]), element(OCTET_STRING, b"x")]),
            sequence(&[
                element(OBJECT_IDENTIFIER, SUBJECT_ALTERNATIVE_NAME),
                element(0x01, &[0xff]),
                element(OCTET_STRING, &names),
            ]),
        ]);
        let fields = sequence(&[
            element(VERSION, &element(INTEGER, &[2])),
            element(INTEGER, &[1]),
            sequence(&[]),
            sequence(&[]),
            sequence(&[element(UTC_TIME, b"700101000000Z"), element(GENERALIZED_TIME, b"20240229235959Z")]),
            sequence(&[]),
            sequence(&[element(OCTET_STRING, &[0; 200])]),
            element(EXTENSIONS, &extensions),
        ]);
        sequence(&[fields, sequence(&[]), element(0x03, &[0])])
    }

    #[test]
    fn names_of_every_kind_are_read() {
        let read = Certificate::parse(&certificate()).expect("a certificate");
        let names =
            ["host.example", "me@host.example", "spiffe://cluster/prometheus", "192.0.2.1", "2001:db8::1"];
        assert_eq!(read.names, names);
        assert_eq!(read.valid, (0, 1_709_251_199));
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_read_and_nothing_else() {
        let whole = certificate();
        for length in 0..whole.len() {
            assert_eq!(Certificate::parse(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                // It must come to an end, whatever it says.
                let _ = Certificate::parse(&changed);
            }
        }
    }
}
