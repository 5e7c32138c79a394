package main

import (
	"fmt"
	"html"
	"strings"
)

// bar is one bar of a plot. Its mark, where above 0, is the length to reach.
type bar struct {
	label, text string
	length      float64
	mark        float64
	good        bool
}

const (
	plotWidth  = 960
	labelWidth = 460
	barsWidth  = 340
	barHeight  = 16
	barStep    = 24
)

// plot draws two plots: throughput as it was measured, and every row as its
// distance from the bar.
func plot(rows []Row) string {
	var body strings.Builder
	y := drawPlot(&body, 24, "Messages published per second", throughput(rows))
	y = drawPlot(&body, y+24, "Each row beside its bar (line: the bar; longer is better)", distances(rows))
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, plotWidth, y+8, body.String())
}

// throughput takes ours once and the other side of each row that shares it.
func throughput(rows []Row) []bar {
	names := map[string]string{"relay/raw": "PublishAsync alone", "relay/watermill": "Watermill forwarder",
		"relay/skiplocked": "SKIP LOCKED poller", "relay/reading": "reading alone"}
	var bars []bar
	for _, r := range rows {
		name, ok := names[r.Name]
		if !ok || r.Other == nil {
			continue
		}
		if len(bars) == 0 {
			bars = append(bars, bar{label: "relay", text: number(r.Ours), length: r.Ours, good: true})
		}
		bars = append(bars, bar{label: name, text: number(*r.Other), length: *r.Other})
	}
	return bars
}

// distances makes rows of all units comparable: 1 is the bar, and what is twice
// as good is twice as long, up to three times.
func distances(rows []Row) []bar {
	var bars []bar
	for _, r := range rows {
		if r.Bar == nil {
			continue
		}
		length, text := 0.0, ""
		if r.Ratio != nil {
			length, text = *r.Ratio / *r.Bar, number(*r.Ratio)
		} else {
			length, text = *r.Bar/max(r.Ours, *r.Bar/100), number(r.Ours)+" "+r.Unit
		}
		bars = append(bars, bar{label: r.What, text: text + " (" + r.barText() + ")", length: min(length, 3), mark: 1, good: *r.Holds})
	}
	return bars
}

// drawPlot draws horizontal bars below y and returns where they end.
func drawPlot(w *strings.Builder, y int, title string, bars []bar) int {
	if len(bars) == 0 {
		return y
	}
	longest := 0.0
	for _, b := range bars {
		longest = max(longest, b.length, b.mark)
	}
	scale := float64(barsWidth) / longest
	fmt.Fprintf(w, `<text x="8" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n", y, html.EscapeString(title))
	y += 12
	for _, b := range bars {
		drawBar(w, y, scale, b)
		y += barStep
	}
	return y
}

func drawBar(w *strings.Builder, y int, scale float64, b bar) {
	colour := "#9aa5b1"
	switch {
	case b.good:
		colour = "#2f7d5b"
	case b.mark > 0:
		colour = "#b5483a"
	}
	width := b.length * scale
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+12, html.EscapeString(b.label))
	fmt.Fprintf(w, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, width, barHeight, colour)
	if b.mark > 0 {
		fmt.Fprintf(w, `<line x1="%[1]d" y1="%[2]d" x2="%[1]d" y2="%[3]d" stroke="#222222" stroke-width="2"/>`,
			labelWidth+int(b.mark*scale), y-3, y+barHeight+3)
	}
	fmt.Fprintf(w, `<text x="%.0f" y="%d">%s</text>`+"\n", float64(labelWidth)+width+6, y+12, html.EscapeString(b.text))
}
