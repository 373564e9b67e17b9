using System.Text;
using System.Text.Json.Nodes;
using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Intervals;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Tests.Tasks;

/// <summary>
/// A second task, known to no line of src: a row is a text, of which the first half counts whole and the rest by half;
/// measured in nats a byte.
/// </summary>
internal sealed class PlainTextType : TaskType
{
    private static readonly MetricKind PerByte = new("loss_per_byte", Direction.Lower) { Unit = "nats" },
        Bytes = new("bytes_per_nat", Direction.Higher);

    /// <summary>Adds it once.</summary>
    public static void Register()
    {
        lock (PerByte)
            if (TaskTypes.Find("plain_text") == null) TaskTypes.Add(new PlainTextType());
    }

    public override string Name => "plain_text";
    public override IReadOnlyList<MetricKind> Metrics => [MetricKind.Loss, PerByte, Bytes];
    public override string BestMetric => PerByte.Name;
    public override IReadOnlyList<string> Keys => ["data.text_field"];
    public override ITask Make(Recipe recipe, ITokenizer tokenizer) => new Encoded(this, recipe.Task, tokenizer);

    public override Evaluation Read(Evaluation logged, JsonObject fields) =>
        logged with { Detail = new Detail((long)fields["bytes"]!) };

    public override IReadOnlyList<Section> Sections(IReadOnlyList<ReportRow> rows) =>
        [
            new(
                "Bytes",
                [
                    new Table(
                        null, "lr", ["model", "bytes"],
                        [.. rows.Select(r => new[] { r.Name, Show.Count(((Detail)r.Evaluation.Detail!).Bytes) })]),
                ]
            ),
        ];

    private sealed record Detail(long Bytes) : IEvaluationDetail
    {
        public JsonObject Fields(bool rows) => new() { ["bytes"] = Bytes };
    }

    private sealed record Row(int[] All, int Bytes) : EncodedRow(All)
    {
        public override IReadOnlyList<LabelSpan> Spans =>
            [new(1, All.Length / 2), new(All.Length / 2, All.Length, 0.5f)];
    }

    private sealed class Encoded(TaskType type, TaskOptions options, ITokenizer tokenizer) : ITask
    {
        public TaskType Type => type;
        public int MaxTokens => options.MaxSeqLength;
        public int LeastLength => 4;
        public int CutTexts => 0;
        public int Candidates => 0;
        public IReadOnlyList<int[]> SharedIds => [];
        public bool WeighsLabels => true;
        public int MostLabels(int longest) => longest;
        public IReadOnlyList<EncodedRow> Encode(DataRow row, bool training)
        {
            int[] ids = tokenizer.Encode(row.Text);
            return [new Row(ids.Length > MaxTokens ? ids[..MaxTokens] : ids, Encoding.UTF8.GetByteCount(row.Text))];
        }

        public IReadOnlyList<string> Notes(IReadOnlyList<DataRow>? train, params IReadOnlyList<DataRow>[] others) =>
            ["Texts are plain."];
        public string Describe(string metric) => type.Metrics.First(m => m.Name == metric).Label;

        public Evaluation Evaluate(Engine engine, IRowSource rows, EvaluationOptions o)
        {
            var losses = RowLosses.Measure(engine, rows, o);
            int[] bytes = [.. Enumerable.Range(0, rows.Count).Select(i => ((Row)rows[i]).Bytes)];
            double sum = losses.Sum(l => l.Sum), perByte = sum / bytes.Sum();
            double[] each = [.. losses.Select((l, i) => l.Sum / bytes[i])];
            return new Evaluation
            {
                Rows = rows.Count,
                Detail = new Detail(bytes.Sum()),
                Metrics =
                [
                    new(MetricKind.Loss, sum / losses.Sum(l => l.Weight)),
                    new(PerByte, perByte, () => Statistics.OfMean(each.Length, each.Sum(), each.Sum(x => x * x))),
                    new(Bytes, 1 / perByte),
                ],
            };
        }
    }
}
