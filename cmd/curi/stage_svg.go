package main

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/curi-store/curi/stages"
)

// The measures of a picture, in pixels.
const (
	svgChar   = 8 // width of a character
	svgHeight = 34
	svgGapX   = 90
	svgGapY   = 22
	svgMargin = 20
)

// svgBox is where a node is drawn.
type svgBox struct {
	node          stages.OutlineNode
	x, y, w       int
	order, middle float64
}

// outlineSVG draws the stages in layers from left to right: each as far left as
// what it needs allows, and near the middle of that.
func outlineSVG(g *stages.Outline) string {
	layers := svgLayers(g)
	at := map[string]*svgBox{}
	x, height := svgMargin, 0
	for _, layer := range layers {
		width := 0
		for _, b := range layer {
			b.w = max(70, (utf8.RuneCountInString(b.node.Name)+3)*svgChar)
			width = max(width, b.w)
		}
		y := svgMargin
		for _, b := range layer {
			b.x, b.y = x+(width-b.w)/2, y
			y += svgHeight + svgGapY
			at[b.node.ID] = b
		}
		height = max(height, y)
		x += width + svgGapX
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n",
		x-svgGapX+svgMargin, height, x-svgGapX+svgMargin, height)
	b.WriteString("<style>.e{fill:none;stroke:#888}.l{fill:#666;font-size:11px}.s{fill:#e8f0fe;stroke:#4a6da7}.a{fill:#fff8e1;stroke:#b08d3c}.t{fill:#222}</style>\n")
	b.WriteString("<defs><marker id=\"to\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#888\"/></marker></defs>\n")
	for _, e := range g.Edges {
		from, to := at[e.From], at[e.To]
		x1, y1, x2, y2 := from.x+from.w, from.y+svgHeight/2, to.x, to.y+svgHeight/2
		bend := (x2 - x1) / 2
		fmt.Fprintf(&b, "<path class=\"e\" marker-end=\"url(#to)\" d=\"M%d %dC%d %d %d %d %d %d\"/>\n", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)
		fmt.Fprintf(&b, "<text class=\"l\" text-anchor=\"end\" x=\"%d\" y=\"%d\">%s</text>\n", x2-10, y2-5, html.EscapeString(e.As))
	}
	for _, layer := range layers {
		for _, n := range layer {
			class, round := "s", 4
			if n.node.Kind != "stage" {
				class, round = "a", svgHeight/2
			}
			fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\"/>\n", class, n.x, n.y, n.w, svgHeight, round)
			if n.node.Aggregate != "" { // a second edge, for it stands over several
				fmt.Fprintf(&b, "<rect class=\"e\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\"/>\n", n.x+3, n.y+3, n.w-6, svgHeight-6, round)
			}
			fmt.Fprintf(&b, "<text class=\"t\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">%s</text>\n", n.x+n.w/2, n.y+svgHeight/2+5, html.EscapeString(n.node.Name))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// svgLayers puts the nodes of each layer in an order with few crossings: a few
// rounds of each going to the middle of its neighbours.
func svgLayers(g *stages.Outline) [][]*svgBox {
	boxes := map[string]*svgBox{}
	var layers [][]*svgBox
	for _, n := range g.Nodes {
		b := &svgBox{node: n}
		boxes[n.ID] = b
		for len(layers) <= n.Layer {
			layers = append(layers, nil)
		}
		layers[n.Layer] = append(layers[n.Layer], b)
	}
	number := func() {
		for _, layer := range layers {
			for i, b := range layer {
				b.order = float64(i) - float64(len(layer))/2
			}
		}
	}
	number()
	for round := range 8 {
		sum, n := map[*svgBox]float64{}, map[*svgBox]float64{}
		for _, e := range g.Edges {
			from, to := boxes[e.From], boxes[e.To]
			if round%2 == 0 {
				sum[to] += from.order
				n[to]++
			} else {
				sum[from] += to.order
				n[from]++
			}
		}
		for _, layer := range layers {
			for _, b := range layer {
				if b.middle = b.order; n[b] > 0 {
					b.middle = sum[b] / n[b]
				}
			}
			slices.SortStableFunc(layer, func(a, b *svgBox) int { return cmp.Compare(a.middle, b.middle) })
		}
		number()
	}
	return layers
}
