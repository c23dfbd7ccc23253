package main

import (
	"fmt"
	"strconv"
	"time"
)

// strftime returns what the C library's strftime(3) prints for one conversion
// in the C locale. ok is false for a conversion it does not know.
func strftime(t time.Time, conversion byte) (text string, ok bool) {
	if layout, ok := strftimeLayouts[conversion]; ok {
		return t.Format(layout), true
	}
	week := func(firstDay time.Weekday) int { // of the year; days before the first firstDay are week 0
		sinceFirst := (int(t.Weekday()) - int(firstDay) + 7) % 7
		return (t.YearDay() - 1 - sinceFirst + 7) / 7
	}
	isoYear, isoWeek := t.ISOWeek()
	hour12 := (t.Hour()+11)%12 + 1
	switch conversion {
	case 'C':
		return fmt.Sprintf("%02d", t.Year()/100), true
	case 'g':
		return fmt.Sprintf("%02d", isoYear%100), true
	case 'G':
		return strconv.Itoa(isoYear), true
	case 'j':
		return fmt.Sprintf("%03d", t.YearDay()), true
	case 'k':
		return fmt.Sprintf("%2d", t.Hour()), true
	case 'l':
		return fmt.Sprintf("%2d", hour12), true
	case 'n':
		return "\n", true
	case 'P':
		return t.Format("pm"), true
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 't':
		return "\t", true
	case 'u':
		return strconv.Itoa((int(t.Weekday())+6)%7 + 1), true
	case 'U':
		return fmt.Sprintf("%02d", week(time.Sunday)), true
	case 'V':
		return fmt.Sprintf("%02d", isoWeek), true
	case 'w':
		return strconv.Itoa(int(t.Weekday())), true
	case 'W':
		return fmt.Sprintf("%02d", week(time.Monday)), true
	}
	return "", false
}

var strftimeLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
	'd': "02", 'e': "_2", 'D': "01/02/06", 'F': "2006-01-02",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'm': "01", 'y': "06", 'Y': "2006",
	'r': "03:04:05 PM", 'R': "15:04", 'T': "15:04:05",
	'z': "-0700", 'Z': "MST",
}
