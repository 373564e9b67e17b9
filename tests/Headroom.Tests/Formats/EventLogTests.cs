using System.Reflection;
using System.Text;
using System.Text.Json.Serialization;
using Headroom.Training.Events;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Formats;

public sealed class EventLogTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();

    /// <summary>A line that a kill cut off is lost; the event that is appended next is not.</summary>
    [Fact]
    public void AppendsAfterALineThatWasCutOff()
    {
        File.WriteAllText(_path, "{\"event\":\"step\",\"step\":1}\n{\"event\":\"st");
        using (var log = new EventLog(_path)) log.Write(new StepEvent { Step = 2 });
        using (var log = new EventLog(_path)) log.Write(new StepEvent { Step = 3 });
        Assert.Equal([1, 2, 3], EventLog.Read(_path).OfType<StepEvent>().Select(e => e.Step));
        Assert.Equal(4, File.ReadLines(_path).Count());
    }

    /// <summary>What other programs read: names, their order, and how values are written.</summary>
    [Fact]
    public void LinesAreWhatTheyWere()
    {
        static string Line(LogEvent e) => Encoding.UTF8.GetString((e with { Time = "t" }).ToLine());
        Assert.Equal(
            """{"event":"step","time":"t","step":2,"epoch":0.5,"loss":null,"grad_norm":1,"learning_rate":1E-05,"tokens":5,"label_tokens":3,"seconds":0.1,"skipped":true,"loss_scale":null}""",
            Line(new StepEvent
            {
                Step = 2,
                Epoch = 0.5,
                Loss = double.NaN,
                GradNorm = 1,
                LearningRate = 1e-5,
                Tokens = 5,
                LabelTokens = 3,
                Seconds = 0.1,
                Skipped = true,
            }));
        Assert.Equal(
            """{"event":"failed","time":"t","at_step":3,"error":"\u0022","to_do":null}""",
            Line(new FailedEvent(3, null, "\"", null)));
        Assert.Equal(
            """{"event":"failed","time":"t","at_step":3,"call":"c","error":"e","to_do":"d"}""",
            Line(new FailedEvent(3, "c", "e", "d")));
        Assert.Equal(
            """{"event":"resumed","time":"t","step":1,"total_steps":4,"seconds_before":2.5,"changed":[{"key":"k","old":"o","new":"n"}],"command":["train","r"]}""",
            Line(new ResumedEvent(1, 4, 2.5, [new("k", "o", "n")], ["train", "r"])));
        var confusion = new ConfusionMatrix([1, 1, 0, 2], [" no", " yes"]);
        var detail = new LabelWordDetail(confusion, 1) { Gold = [0], Predicted = [0], Loss = 0.5 };
        var found = new Evaluation
        {
            Rows = 4,
            Detail = detail,
            Metrics = [new(MetricKind.Loss, 0.5, () => new(0.5, 0.25, double.PositiveInfinity), "mean loss")],
        };
        const string Own = "\"loss\":0.5,\"accuracy\":0.75,\"precision\":0.6666666666666666,\"recall\":1,\"f1\":0.8,"
            + "\"average\":\"binary\",\"f1_macro\":0.7333333333333334,\"f1_weighted\":0.7333333333333334,"
            + "\"labels\":[\" no\",\" yes\"],\"confusion\":[[1,1],[0,2]]";
        Assert.Equal(
            "{\"event\":\"eval\",\"time\":\"t\",\"rows\":4," + Own
                + ""","metrics":[{"name":"loss","value":0.5,"better":"lower","label":"mean loss"}],"seconds":1,"step":2,"split":"validation"}""",
            Line(new EvalEvent(1, 2, "validation").With(found, rows: false)));
        Assert.Equal(
            "{\"event\":\"test\",\"time\":\"t\",\"rows\":4," + Own + ",\"gold\":[0],\"predicted\":[0],\"tiers\":null"
                + ""","metrics":[{"name":"loss","value":0.5,"better":"lower","label":"mean loss","low":0.25,"high":null}],"seconds":1,"stage":"tuned"}""",
            Line(new TestEvent(1, TestEvent.Tuned).With(found, rows: true)));
    }

    /// <summary>
    /// Kinds and fields of a later version are no fault: the line stays in the log, and is cut by its step.
    /// </summary>
    [Fact]
    public void EventsOfALaterVersionAreKept()
    {
        string[] lines =
        [
            """{"event":"step","step":1,"loss":2,"warmth":{"a":[1]}}""",
            """{"time":"2026-01-01T00:00:00.0000000Z","step":1,"event":"dream","of":[1,2]}""",
            """{"event":"dream","step":2}""", """{"event":"dream"}""", """{"event":"step","step":2.5}""",
        ];
        File.WriteAllLines(_path, lines);
        var read = EventLog.Read(_path).ToList();
        Assert.Equal(
            [typeof(StepEvent), typeof(LogEvent), typeof(LogEvent), typeof(LogEvent)], read.Select(e => e.GetType()));
        Assert.Equal((1, 2.0), (((StepEvent)read[0]).Step, ((StepEvent)read[0]).Loss));
        Assert.Equal(new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc), read[1].At);
        EventLog.Cut(_path, _path + ".cut", 1);
        Assert.Equal([lines[0], lines[1], lines[3]], File.ReadAllLines(_path));
        Assert.Equal([lines[2], lines[4]], File.ReadAllLines(_path + ".cut"));
        File.Delete(_path + ".cut");
    }

    [Fact]
    public void EveryKindHasAName()
    {
        var named = typeof(LogEvent).GetCustomAttributes<JsonDerivedTypeAttribute>().Select(a => a.DerivedType);
        Assert.Empty(typeof(LogEvent).Assembly.GetTypes()
            .Where(t => t.IsSubclassOf(typeof(LogEvent)) && !t.IsAbstract).Except(named));
    }

    public void Dispose() => File.Delete(_path);
}
