package main

import (
	"fmt"
	"log"
	"math"
	"slices"
)

// side is one of the things that are compared: run returns the seconds that it
// took.
type side struct {
	name string
	run  func() (float64, error)
}

// interleave measures the sides in turns, so that whatever else the machine
// does hits all of them; who begins changes from round to round. The first
// round warms caches and is not counted. It returns the seconds of each side.
func interleave(rounds int, sides ...side) ([]samples, error) {
	if _, err := inTurns(1, sides); err != nil {
		return nil, err
	}
	all, err := inTurns(rounds, sides)
	if err != nil {
		return nil, err
	}
	for i, s := range sides {
		log.Printf("  %-40s %.4g s", s.name, all[i].median())
	}
	return all, nil
}

// tooLong is how long a side may take over all its rounds, in seconds, before
// it is asked no more.
const tooLong = 60

func inTurns(rounds int, sides []side) ([]samples, error) {
	all := make([]samples, len(sides))
	for round := range rounds {
		for i := range sides {
			i = (i + round) % len(sides)
			if all[i].sum() > tooLong {
				continue
			}
			seconds, err := sides[i].run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			all[i] = append(all[i], seconds)
		}
	}
	return all, nil
}

// samples are the seconds of one side, round by round.
type samples []float64

func (s samples) sum() (sum float64) {
	for _, v := range s {
		sum += v
	}
	return sum
}

func (s samples) median() float64 { return s.quantile(0.5) }

// quantile is the value that the share q of the samples lies below.
func (s samples) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low, high := sorted[int(math.Floor(at))], sorted[int(math.Ceil(at))]
	return low + (high-low)*(at-math.Floor(at))
}

// over is s over other, round by round.
func (s samples) over(other samples) samples {
	ratios := make(samples, min(len(s), len(other)))
	for i := range ratios {
		ratios[i] = s[i] / other[i]
	}
	return ratios
}
