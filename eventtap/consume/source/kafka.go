// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/meshtap/meshtap/eventtap/consume"
)

// kafka reads topics.
type kafka struct {
	client *kgo.Client
	opt    Options
}

func newKafka(brokers []string, o Options) (*kafka, error) {
	if len(o.Topics) == 0 {
		return nil, errors.New("source: Kafka: no topic to read")
	}
	at := kgo.NewOffset().AtEnd()
	switch {
	case o.All:
		at = kgo.NewOffset().AtStart()
	case !o.Start.Since.IsZero():
		at = kgo.NewOffset().AfterMilli(o.Start.Since.UnixMilli())
	}
	opts := append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(o.Topics...), kgo.ConsumeResetOffset(at), kgo.ClientID("meshtap")}, o.Kafka...)
	if o.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(o.TLS))
	}
	if o.Group != "" {
		if !o.Follow {
			return nil, errors.New("source: Kafka: a group has no end; follow it")
		}
		opts = append(opts, kgo.ConsumerGroup(o.Group), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll())
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("source: Kafka: %w", err)
	}
	return &kafka{client, o}, nil
}

// Close leaves the group, if there is one, after it has committed what was handled.
func (k *kafka) Close() error {
	k.client.CloseAllowingRebalance()
	return nil
}

// part is a partition.
type part struct {
	topic string
	n     int32
}

// Read implements consume.Source. It brings the partitions one batch after the other, each in its order.
func (k *kafka) Read(ctx context.Context, each func(*consume.Message) error) error {
	var ends map[part]int64
	if !k.opt.Follow {
		var err error
		if ends, err = k.ends(ctx); err != nil {
			return fmt.Errorf("source: Kafka: %w", err)
		}
	}
	orders := map[part]*lowWater[*kgo.Record]{}
	for k.opt.Follow || len(ends) > 0 {
		fetches := k.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("source: Kafka: topic %s, partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			p := part{r.Topic, r.Partition}
			end, open := ends[p]
			if ends != nil && (!open || r.Offset >= end) {
				delete(ends, p)
				continue
			}
			m, err := message(r)
			if err != nil {
				m = &consume.Message{Data: r.Value} // the reader counts it
			}
			if k.opt.Group != "" {
				if orders[p] == nil {
					orders[p] = &lowWater[*kgo.Record]{done: func(r *kgo.Record) { k.client.MarkCommitRecords(r) }}
				}
				m.Done = orders[p].add(r)
			}
			if err := each(m); err != nil {
				return err
			}
			if open && r.Offset+1 >= end {
				delete(ends, p)
			}
		}
		k.client.AllowRebalance()
	}
	return nil
}

// message makes a message of a record, whose headers are those of the CloudEvents Kafka protocol binding 1.0.
func message(r *kgo.Record) (*consume.Message, error) {
	m := &consume.Message{Seq: uint64(r.Offset), Stored: r.Timestamp, Data: r.Value}
	attributes := map[string]string{}
	for _, h := range r.Headers {
		if name, ok := strings.CutPrefix(h.Key, "ce_"); ok {
			attributes[name] = string(h.Value)
		} else if h.Key == "content-type" {
			m.Type = string(h.Value)
		}
	}
	return m, m.Structure(attributes)
}

// ends returns the offsets at which the partitions that are not empty end now.
func (k *kafka) ends(ctx context.Context) (map[part]int64, error) {
	first, err := k.offsets(ctx, -2)
	if err != nil {
		return nil, err
	}
	last, err := k.offsets(ctx, -1)
	for p, n := range last {
		if n <= first[p] || !k.opt.All && k.opt.Start.Since.IsZero() {
			delete(last, p)
		}
	}
	return last, err
}

// offsets asks for the offsets of a time; -1 is the end and -2 the beginning.
func (k *kafka) offsets(ctx context.Context, at int64) (map[part]int64, error) {
	meta := kmsg.NewPtrMetadataRequest()
	for _, t := range k.opt.Topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &t
		meta.Topics = append(meta.Topics, topic)
	}
	known, err := meta.RequestWith(ctx, k.client)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, t := range known.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, err
		}
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = *t.Topic
		for _, p := range t.Partitions {
			partition := kmsg.NewListOffsetsRequestTopicPartition()
			partition.Partition, partition.Timestamp = p.Partition, at
			topic.Partitions = append(topic.Partitions, partition)
		}
		req.Topics = append(req.Topics, topic)
	}
	out := map[part]int64{}
	for _, shard := range k.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, err
				}
				out[part{t.Topic, p.Partition}] = p.Offset
			}
		}
	}
	return out, nil
}
