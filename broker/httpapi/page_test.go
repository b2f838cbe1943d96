// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestListsComeInPages: each item once, whatever goes meanwhile.
func TestListsComeInPages(t *testing.T) {
	c := start(t)
	for i := range 7 {
		ok[broker.Agent](c, "POST", "/v1/agents", fmt.Sprintf(`{"name":"agent-%d"}`, i))
	}
	var names []string
	cursor := ""
	for pages := 1; ; pages++ {
		p := ok[httpapi.List[broker.Agent]](c, "GET", "/v1/agents?page_size=3&cursor="+cursor, "")
		for _, g := range p.Items {
			names = append(names, g.Name)
		}
		if cursor = p.Next; cursor == "" {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		if pages == 1 { // what the page ended with goes
			ok[httpapi.Ended](c, "DELETE", "/v1/agents/"+names[len(names)-1], "")
			// and takes its place: the list goes on behind where it was
			ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"agent-2"}`)
		}
	}
	if got := strings.Join(names, " "); got != "agent-0 agent-1 agent-2 agent-2 agent-3 agent-4 agent-5 agent-6" &&
		got != "agent-0 agent-1 agent-2 agent-3 agent-4 agent-5 agent-6" {
		t.Errorf("listed %s", got)
	}
	whole := ok[httpapi.List[broker.Agent]](c, "GET", "/v1/agents", "")
	if len(whole.Items) != 7 || whole.Next != "" {
		t.Errorf("without a page: %d, next %q", len(whole.Items), whole.Next)
	}
	for _, query := range []string{"page_size=0", "page_size=x", "page_size=100000", "cursor=!", "cursor=eA"} {
		c.refused("GET", "/v1/agents?"+query, "", http.StatusUnprocessableEntity, broker.Invalid)
	}
	if p := ok[httpapi.List[broker.Agent]](c, "GET", "/v1/agents?page_size=7", ""); p.Next != "" {
		t.Errorf("a full last page has a next one: %q", p.Next)
	}
}
