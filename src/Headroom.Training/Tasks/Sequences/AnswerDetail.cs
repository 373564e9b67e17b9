using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Some of a model's answers, for the log and the report.</summary>
/// <param name="Samples">The first rows' answers.</param>
internal sealed record AnswerDetail(IReadOnlyList<Answered> Samples) : IEvaluationDetail
{
    /// <summary>Answers that are kept.</summary>
    public const int Most = 8;
    private const string Field = "samples";
    private const int MostLetters = 600; // of a cell in the report

    /// <inheritdoc/>
    public JsonObject Fields(bool rows) => rows ? new()
    {
        [Field] = new JsonArray([.. Samples.Select(s => (JsonNode)new JsonObject
        {
            ["prompt"] = s.Prompt,
            ["expected"] = s.Expected,
            ["answer"] = s.Answer,
        })]),
    } : [];

    /// <summary>Takes them back of an event; what is odd is left out.</summary>
    public static AnswerDetail? Read(JsonObject fields)
    {
        if (fields[Field] is not JsonArray list) return null;
        var samples = list.OfType<JsonObject>()
            .Select(s => (Prompt: Text(s["prompt"]), Expected: Text(s["expected"]), Answer: Text(s["answer"])))
            .Where(s => s is { Prompt: not null, Expected: not null, Answer: not null })
            .Select(s => new Answered(s.Prompt!, s.Expected!, s.Answer!));
        return new([.. samples]);
    }

    /// <summary>Answers of all models side by side, a table a prompt.</summary>
    public static Section Section(IReadOnlyList<ReportRow> rows)
    {
        var with = rows.Where(r => r.Evaluation.Detail is AnswerDetail).ToList();
        var prompts = with.SelectMany(r => ((AnswerDetail)r.Evaluation.Detail!).Samples)
            .Select(s => (s.Prompt, s.Expected)).Distinct().Take(Most);
        return new Section("Answers", [.. prompts.Select(p => (Block)new Table(
            Show.Short(p.Prompt, MostLetters), "lll", ["model", "stage", "answer"],
            [
                ["the data", "", Show.Short(p.Expected, MostLetters)],
                .. with.Select(r => (Row: r, Sample: ((AnswerDetail)r.Evaluation.Detail!).Samples
                        .FirstOrDefault(s => s.Prompt == p.Prompt && s.Expected == p.Expected)))
                    .Where(r => r.Sample != null)
                    .Select(r => new[] { r.Row.Label, r.Row.Stage, Show.Short(r.Sample!.Answer, MostLetters) }),
            ]))]);
    }

    private static string? Text(JsonNode? node) =>
        node is JsonValue && node.GetValueKind() == JsonValueKind.String ? node.GetValue<string>() : null;
}
