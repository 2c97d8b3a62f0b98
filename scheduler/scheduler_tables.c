/* scheduler_tables.c - the scheduler's containers: binary heap with embedded nodes (O(log n) insert,
 * remove, rekey), intrusive sample lists (O(1)), the table of groups by id (O(log n) find, O(1)
 * amortised append and remove) and the ring of actions.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

/* Heap */

static void heap_place(struct heap *heap, struct heap_node *node, size_t at)
{
	heap->nodes[at] = node;
	node->at = at;
}

/* Move the node from its place to where its key belongs. */
static void heap_sift(struct heap *heap, struct heap_node *node)
{
	size_t at = node->at;
	while (at > 1 && heap->nodes[at / 2]->key > node->key) {
		heap_place(heap, heap->nodes[at / 2], at);
		at /= 2;
	}
	for (size_t child; (child = 2 * at) <= heap->n; at = child) {
		if (child < heap->n && heap->nodes[child + 1]->key < heap->nodes[child]->key)
			child++;
		if (heap->nodes[child]->key >= node->key)
			break;
		heap_place(heap, heap->nodes[child], at);
	}
	heap_place(heap, node, at);
}

void heap_insert(struct heap *heap, struct heap_node *node, uint64_t key, void *owner)
{
	assert(node->at == 0);
	if (heap->n + 2 > heap->capacity) {
		heap->capacity = heap->capacity ? 2 * heap->capacity : 64;
		heap->nodes = xrealloc(heap->nodes, heap->capacity * sizeof(*heap->nodes));
	}
	node->key = key;
	node->owner = owner;
	heap_place(heap, node, ++heap->n);
	heap_sift(heap, node);
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
	assert(node->at > 0 && heap->nodes[node->at] == node);
	struct heap_node *last = heap->nodes[heap->n--];
	if (last != node) {
		heap_place(heap, last, node->at);
		heap_sift(heap, last);
	}
	node->at = 0;
}

void heap_rekey(struct heap *heap, struct heap_node *node, uint64_t key)
{
	assert(node->at > 0);
	node->key = key;
	heap_sift(heap, node);
}

void *heap_first(const struct heap *heap)
{
	return heap->n ? heap->nodes[1]->owner : NULL;
}

void heap_free(struct heap *heap)
{
	free(heap->nodes);
}

/* Sample lists */

void sample_list_push_front(struct sample_list *list, struct sample *sample)
{
	sample->previous = NULL;
	sample->next = list->first;
	*(list->first ? &list->first->previous : &list->last) = sample;
	list->first = sample;
	list->n++;
}

void sample_list_push_back(struct sample_list *list, struct sample *sample)
{
	sample->next = NULL;
	sample->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = sample;
	list->last = sample;
	list->n++;
}

void sample_list_remove(struct sample_list *list, struct sample *sample)
{
	*(sample->previous ? &sample->previous->next : &list->first) = sample->next;
	*(sample->next ? &sample->next->previous : &list->last) = sample->previous;
	sample->previous = sample->next = NULL;
	list->n--;
}

/* Groups by id */

/* The first slot whose id is not below `id`. */
static size_t group_map_seek(const struct group_map *table, uint64_t id)
{
	size_t low = 0, high = table->n_slots;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (table->slots[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct group *group_map_find(const struct group_map *table, uint64_t id)
{
	size_t at = group_map_seek(table, id);
	return at < table->n_slots && table->slots[at].id == id ? table->slots[at].group : NULL;
}

/* Ids ascend but for restored groups, so this appends. */
void group_map_insert(struct group_map *table, struct group *group)
{
	if (table->n_slots == table->capacity) {
		table->capacity = table->capacity ? 2 * table->capacity : 64;
		table->slots = xrealloc(table->slots, table->capacity * sizeof(*table->slots));
	}
	size_t at = table->n_slots;
	if (at > 0 && table->slots[at - 1].id >= group->id)
		at = group_map_seek(table, group->id);
	memmove(&table->slots[at + 1], &table->slots[at], (table->n_slots - at) * sizeof(*table->slots));
	table->slots[at] = (struct group_slot){.id = group->id, .group = group};
	table->n_slots++;
	table->n_live++;
}

void group_map_remove(struct group_map *table, uint64_t id)
{
	size_t at = group_map_seek(table, id);
	assert(at < table->n_slots && table->slots[at].id == id && table->slots[at].group);
	free(table->slots[at].group);
	table->slots[at].group = NULL;
	table->n_live--;
	if (table->n_slots < 2 * table->n_live + 16)
		return;
	size_t n = 0;
	for (size_t i = 0; i < table->n_slots; i++)
		if (table->slots[i].group)
			table->slots[n++] = table->slots[i];
	table->n_slots = n;
}

struct group *group_map_resize(struct group_map *table, struct group *group, int n_samples)
{
	size_t at = group_map_seek(table, group->id);
	assert(table->slots[at].group == group && group->kept_node.at == 0 && group->unsettled_node.at == 0);
	group = xrealloc(group, sizeof(*group) + (size_t)n_samples * sizeof(group->samples[0]));
	table->slots[at].group = group;
	for (int i = 0; i < group->n_samples; i++)
		group->samples[i].group = group;
	group->n_samples = n_samples;
	return group;
}

void group_map_free(struct group_map *table)
{
	for (size_t i = 0; i < table->n_slots; i++)
		free(table->slots[i].group);
	free(table->slots);
}

/* Actions */

void action_queue_push(struct action_queue *queue, const struct action *action)
{
	if (queue->n == queue->capacity) {
		size_t capacity = queue->capacity ? 2 * queue->capacity : 64;
		struct action *items = xmalloc(capacity * sizeof(*items));
		for (size_t i = 0; i < queue->n; i++)
			items[i] = queue->items[(queue->first + i) & (queue->capacity - 1)];
		free(queue->items);
		*queue = (struct action_queue){.items = items, .n = queue->n, .capacity = capacity};
	}
	queue->items[(queue->first + queue->n++) & (queue->capacity - 1)] = *action;
}

bool action_queue_pop(struct action_queue *queue, struct action *action)
{
	if (queue->n == 0)
		return false;
	*action = queue->items[queue->first];
	queue->first = (queue->first + 1) & (queue->capacity - 1);
	queue->n--;
	return true;
}
