// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postern-mail/postern/broker"
)

const (
	// defaultPage and maxPage bound a page of a list.
	defaultPage = 1000
	maxPage     = 10000
)

// pageable is the body of an answer that comes in pages.
type pageable interface{ page(p *pageQuery) error }

// pageQuery is which part of a list is wanted.
type pageQuery struct {
	limit int
	// after is the last item of the page before, at its place in the list.
	after broker.ID
	place int
}

type pageKey struct{}

// pageParameters are the query's parameters of every list that has no limits
// of its own.
func pageParameters() []*huma.Param {
	least, most := 1.0, float64(maxPage)
	return []*huma.Param{
		{
			Name: "page_size", In: "query", Description: "How many items a page has at most; 1000 unless given.",
			Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most},
		},
		{
			Name: "cursor", In: "query", Description: "The next member of the page before, for the page that follows.",
			Schema: &huma.Schema{Type: huma.TypeString},
		},
	}
}

// takePage moves the page's parameters from the query into the context: they
// are no handler's.
func takePage(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	query := r.URL.Query()
	given := [2]string{query.Get("page_size"), query.Get("cursor")}
	query.Del("page_size")
	query.Del("cursor")
	r.URL.RawQuery = query.Encode()
	next(huma.WithValue(ctx, pageKey{}, given))
}

// pageOf returns an answer's body, if that comes in pages.
func pageOf(out any) (pageable, bool) {
	body := reflect.ValueOf(out).Elem().FieldByName("Body")
	if !body.IsValid() {
		return nil, false
	}
	p, ok := body.Addr().Interface().(pageable)
	return p, ok
}

// page cuts an answer down to the page that was asked for.
func page(ctx context.Context, body pageable) error {
	given, ok := ctx.Value(pageKey{}).([2]string)
	if !ok {
		return nil
	}
	p := &pageQuery{limit: defaultPage}
	if given[0] != "" {
		n, err := strconv.Atoi(given[0])
		if err != nil || n < 1 || n > maxPage {
			return broker.InvalidField("page_size", "use 1 to %d", maxPage)
		}
		p.limit = n
	}
	if given[1] != "" {
		text, err := base64.RawURLEncoding.DecodeString(given[1])
		place, id, found := strings.Cut(string(text), ":")
		if p.place, p.after = 0, broker.ID(id); err == nil && found {
			p.place, err = strconv.Atoi(place)
		}
		if err != nil || !found || p.place < 0 {
			return broker.InvalidField("cursor", "is none that was given out")
		}
	}
	return body.page(p)
}

// page cuts l down. The item that the page before ended with may be gone: then
// the list goes on from where it was.
func (l *List[T]) page(p *pageQuery) error {
	from := 0
	if p.after != "" {
		from = min(p.place, len(l.Items))
		for i, item := range l.Items {
			if idOf(item) == p.after {
				from = i + 1
				break
			}
		}
	}
	l.Items = l.Items[from:]
	if len(l.Items) > p.limit {
		l.Items = l.Items[:p.limit]
		last := strconv.Itoa(from+p.limit-1) + ":" + string(idOf(l.Items[p.limit-1]))
		l.Next = base64.RawURLEncoding.EncodeToString([]byte(last))
	}
	return nil
}

// idOf is the id that every thing in a list has.
func idOf(item any) broker.ID {
	v := reflect.Indirect(reflect.ValueOf(item))
	if v.Kind() != reflect.Struct {
		return ""
	}
	id, _ := v.FieldByName("ID").Interface().(broker.ID)
	return id
}
