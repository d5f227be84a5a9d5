//! Moments as people write them and read them.

const DAY_SECONDS: i64 = 86_400;

/// The moment that a text means, in seconds since the epoch.
pub(super) fn moment(text: &str, now_seconds: f64) -> Result<f64, String> {
    let wrong = || {
        format!(
            "{text:?} is not a time; write 2h for two hours ago (s, m, h, d), 2026-11-22T08:00:00Z, or seconds since the epoch"
        )
    };
    if let Some(ago) = ago_seconds(text) {
        return Ok((now_seconds - ago).max(0.0));
    }
    let seconds = text.parse().ok().or_else(|| date_seconds(text)).ok_or_else(wrong)?;
    if (0.0..=now_seconds.max(1e11)).contains(&seconds) { Ok(seconds) } else { Err(wrong()) }
}

fn ago_seconds(text: &str) -> Option<f64> {
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0)];
    let (unit, seconds) = units.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
    let count: f64 = text.strip_suffix(unit)?.parse().ok()?;
    (count.is_finite() && count >= 0.0).then_some(count * seconds)
}

/// A date in UTC; its time of day may be left out, or its seconds.
fn date_seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let [year, month, day] = numbers(date, '-')?;
    let time = time.strip_suffix('Z').unwrap_or(time);
    let [hour, minute, second] = numbers(time, ':').or_else(|| numbers(&format!("{time}:00"), ':'))?;
    let days = days_from_date(year, month, day);
    let is_date = (1970..=9999).contains(&year) && date_from_days(days) == (year, month, day);
    let is_time = hour < 24 && minute < 60 && second < 60;
    (is_date && is_time).then(|| (days * DAY_SECONDS + hour * 3600 + minute * 60 + second) as f64)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == separator as u8);
    let parts: Option<Vec<i64>> = text.split(separator).map(|part| part.parse().ok()).collect();
    parts.filter(|_| is_plain)?.try_into().ok()
}

/// A moment as a date in UTC, to the second.
pub(super) fn shown(unix_seconds: f64) -> String {
    let seconds = unix_seconds as i64;
    let (year, month, day) = date_from_days(seconds.div_euclid(DAY_SECONDS));
    let second = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since the epoch. Years are counted from March, so that the day that comes and goes is a year's last.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_comes_back_as_it_went() {
        let mut previous = (0, 0, 0);
        for days in 0..200_000 {
            let date = date_from_days(days);
            assert!(date > previous);
            assert_eq!(days_from_date(date.0, date.1, date.2), days);
            previous = date;
        }
        assert_eq!(shown(951_782_400.5), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_795_370_400.0), "2026-11-22T18:00:00Z");
    }

    #[test]
    fn a_moment_is_said_in_three_ways() {
        let now = 1_795_370_400.0;
        let check = |text: &str, expected: f64| assert_eq!(moment(text, now), Ok(expected), "{text}");
        check("2h", now - 7200.0);
        check("1.5m", now - 90.0);
        check("1795370000", 1_795_370_000.0);
        check("2026-11-22T18:00:00Z", now);
        check("2026-11-22 17:59", now - 60.0);
        check("2026-11-22", now - 18.0 * 3600.0);
        for wrong in
            ["", "h", "-1h", "tomorrow", "2026-02-30", "2026-11-22T25:00:00Z", "2026-1", "-5", "NaN", "nand"]
        {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }
}
