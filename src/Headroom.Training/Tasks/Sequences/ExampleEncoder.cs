using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>
/// Examples to tokens, with what of them is an answer. A conversation is rendered by the chat template, which says for
/// every character whether it comes from an assistant (<see cref="ChatTemplate.RenderMarked"/>). Safe for use from
/// several threads.
/// </summary>
internal sealed class ExampleEncoder
{
    private readonly TaskOptions _task;
    private readonly ITokenizer _tokenizer;
    private readonly Lazy<ChatTemplate> _template;

    /// <summary>Over a tokenizer, and its chat template or that of the task.</summary>
    /// <exception cref="HeadroomException">The task's template cannot be read.</exception>
    public ExampleEncoder(TaskOptions task, ITokenizer tokenizer)
    {
        (_task, _tokenizer) = (task, tokenizer);
        string? own = task.ChatTemplate == null ? null : TemplateText(task.ChatTemplate);
        HasTemplate = own != null || tokenizer.ChatTemplate != null;
        _template = new(() => own == null ? ChatTemplate.Get(tokenizer) : new ChatTemplate(own, tokenizer));
        if (own != null) _ = _template.Value; // a template that is none is refused before a row is read
    }

    private bool HasTemplate { get; }

    /// <summary>Tokens and answers of a row.</summary>
    public SequenceTokens Encode(DataRow row)
    {
        var (example, where) = (ExampleRow)row;
        try
        {
            return example switch
            {
                Conversation c => Encode(c),
                Instruction i => HasTemplate ? Encode(i.ToConversation()) : Encode(i.ToCompletion()),
                Completion c => Encode(c),
                _ => throw new InvalidOperationException($"no encoding of {example.GetType().Name}"),
            };
        }
        catch (HeadroomException e)
        {
            throw new HeadroomException($"{where}: {e.Message}", e.ToDo, e.ExitCode, e);
        }
    }

    private SequenceTokens Encode(Conversation c)
    {
        var marked = _template.Value.RenderMarked(c.Messages, c.Variables);
        var turns = marked.Turns.Where(t => c.Learned[t.Message] && (_task.TrainOnReasoning || !t.Reasoning)).ToList();
        if (_task.LastTurnOnly && turns.Count > 0)
        {
            int last = turns[^1].Message;
            turns.RemoveAll(t => t.Message != last);
        }
        var (ids, offsets) = _tokenizer.EncodeWithOffsets(marked.Text);
        var spans = TokenSpans.Find(turns, offsets);
        bool open = marked.Unclosed.Contains(c.Messages.Count - 1);
        return open && _tokenizer.EosId is { } eos ? Closed(ids, spans, eos) : new(ids, spans);
    }

    // A template that closes an answer with no token: the end of the row stands for it.
    private static SequenceTokens Closed(int[] ids, IReadOnlyList<LabelSpan> spans, int eos) =>
        new(
            [.. ids, eos],
            spans.Count > 0 && spans[^1].End == ids.Length
                ? [.. spans.SkipLast(1), spans[^1] with { End = ids.Length + 1 }]
                : [.. spans, new LabelSpan(ids.Length, ids.Length + 1)]);

    private SequenceTokens Encode(Completion c)
    {
        var (ids, offsets) = _tokenizer.EncodeWithOffsets(c.Prompt + c.Answer);
        int first = 0;
        while (first < ids.Length && offsets[first].End <= c.Prompt.Length) first++;
        int bos = _tokenizer.AddBos && _tokenizer.BosId is { } b && (ids.Length == 0 || ids[0] != b) ? 1 : 0;
        if (bos == 1)
        {
            ids = [_tokenizer.BosId!.Value, .. ids];
            first++;
        }
        ids = TextType.Ended(_tokenizer, ids);
        return new(ids, [new LabelSpan(first, ids.Length)]);
    }

    private static string TemplateText(string given)
    {
        if (given.Contains("{{", StringComparison.Ordinal) || given.Contains("{%", StringComparison.Ordinal))
            return given;
        if (!File.Exists(given))
            throw new HeadroomException(
                $"task.chat_template {HeadroomException.Value(given)} is no file and no template.",
                "Name a .jinja file, or give the template's text.");
        return RecipeLoader.ReadText(given);
    }
}
