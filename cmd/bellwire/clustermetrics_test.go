package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellwire/bellwire/cluster"
)

// Whatever a node counts is a metric: each number of cluster.Stats is seen, once.
func TestEveryCountOfANodeIsAMetric(t *testing.T) {
	var stats cluster.Stats
	want := map[float64]string{}
	number(reflect.ValueOf(&stats).Elem(), "Stats", want)
	r := prometheus.NewRegistry()
	r.MustRegister(nodeMetrics(func() cluster.Stats { return stats }))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
		if want[value] == "" {
			t.Errorf("%s shows %v, which is no number of Stats, or one that has been shown", f.GetName(), value)
		}
		delete(want, value)
	}
	for _, field := range want {
		t.Errorf("%s is no metric", field)
	}
}

// number gives each field of v a number of its own, which a metric shows.
func number(v reflect.Value, path string, numbers map[float64]string) {
	for i := range v.NumField() {
		f, name := v.Field(i), path+"."+v.Type().Field(i).Name
		n := len(numbers) + 1
		switch {
		case f.Kind() == reflect.Struct:
			number(f, name, numbers)
			continue
		case f.Type() == reflect.TypeFor[time.Duration]():
			f.SetInt(int64(n) * int64(time.Second))
		case f.CanUint():
			f.SetUint(uint64(n))
		default:
			f.SetInt(int64(n))
		}
		numbers[float64(n)] = name
	}
}
