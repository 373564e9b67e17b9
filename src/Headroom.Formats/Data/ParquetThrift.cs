using static Headroom.Formats.Data.ThriftType;

namespace Headroom.Formats.Data;

/// <summary>
/// The structures of Parquet files, by number and type as
/// https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift defines them.
/// </summary>
internal static class ParquetThrift
{
    private static ThriftField F(short id, ThriftType type, bool required = false) => new(id, type, Required: required);

    private static ThriftField S(short id, ThriftStruct of, bool required = false) =>
        new(id, Struct, Of: of, Required: required);

    private static ThriftField L(short id, ThriftType element, bool required = false) =>
        new(id, List, element, Required: required);

    private static ThriftField L(short id, ThriftStruct of, bool required = false) =>
        new(id, List, Struct, of, required);

    private static readonly ThriftStruct Empty = new();
    private static readonly ThriftStruct Statistics = new(
        F(1, Binary), F(2, Binary), F(3, I64), F(4, I64), F(5, Binary), F(6, Binary), F(7, Bool), F(8, Bool));
    private static readonly ThriftStruct SizeStatistics = new(F(1, I64), L(2, I64), L(3, I64));
    private static readonly ThriftStruct BoundingBox = new(
        F(1, ThriftType.Double, true),
        F(2, ThriftType.Double, true),
        F(3, ThriftType.Double, true),
        F(4, ThriftType.Double, true),
        F(5, ThriftType.Double), F(6, ThriftType.Double), F(7, ThriftType.Double), F(8, ThriftType.Double));
    private static readonly ThriftStruct GeospatialStatistics = new(S(1, BoundingBox), L(2, I32));
    private static readonly ThriftStruct KeyValue = new(F(1, Binary, true), F(2, Binary));
    private static readonly ThriftStruct Unit = new(S(1, Empty), S(2, Empty), S(3, Empty));
    private static readonly ThriftStruct Time = new(F(1, Bool, true), S(2, Unit, true));
    private static readonly ThriftStruct LogicalType = new(
        S(1, Empty),
        S(2, Empty),
        S(3, Empty),
        S(4, Empty),
        S(5, new(F(1, I32, true), F(2, I32, true))),
        S(6, Empty),
        S(7, Time),
        S(8, Time),
        S(10, new(F(1, I8, true), F(2, Bool, true))),
        S(11, Empty),
        S(12, Empty),
        S(13, Empty),
        S(14, Empty),
        S(15, Empty),
        S(16, new(F(1, I8))),
        S(17, new(F(1, Binary))), S(18, new(F(1, Binary), F(2, I32))));
    private static readonly ThriftStruct Crypto = new(S(1, Empty), S(2, new(L(1, Binary, true), F(2, Binary))));
    private static readonly ThriftStruct Aes = new(F(1, Binary), F(2, Binary), F(3, Bool));

    /// <summary>
    /// type 1, type_length 2, repetition_type 3, name 4, num_children 5, converted_type 6, scale 7, precision 8.
    /// </summary>
    public static readonly ThriftStruct SchemaElement = new(
        F(1, I32),
        F(2, I32),
        F(3, I32),
        F(4, Binary, true),
        F(5, I32),
        F(6, I32),
        F(7, I32),
        F(8, I32),
        F(9, I32),
        S(10, LogicalType));

    /// <summary>type 1, encodings 2, path_in_schema 3, codec 4, num_values 5, total_uncompressed_size 6,
    /// total_compressed_size 7, data_page_offset 9, index_page_offset 10, dictionary_page_offset 11.</summary>
    public static readonly ThriftStruct ColumnMetaData = new(
        F(1, I32, true),
        L(2, I32, true),
        L(3, Binary, true),
        F(4, I32, true),
        F(5, I64, true),
        F(6, I64, true),
        F(7, I64, true),
        L(8, KeyValue),
        F(9, I64, true),
        F(10, I64),
        F(11, I64),
        S(12, Statistics),
        L(13, new ThriftStruct(F(1, I32, true), F(2, I32, true), F(3, I32, true))),
        F(14, I64),
        F(15, I32), S(16, SizeStatistics), S(17, GeospatialStatistics));

    /// <summary>
    /// file_path 1, file_offset 2, meta_data 3, crypto_metadata 8. file_offset is read by nobody and left out by some
    /// writers.
    /// </summary>
    public static readonly ThriftStruct ColumnChunk = new(
        F(1, Binary), F(2, I64), S(3, ColumnMetaData), F(4, I64), F(5, I32), F(6, I64), F(7, I32), S(8, Crypto),
        F(9, Binary));

    /// <summary>columns 1, total_byte_size 2, num_rows 3.</summary>
    public static readonly ThriftStruct RowGroup = new(L(1, ColumnChunk, true), F(2, I64, true), F(3, I64, true),
        L(4, new ThriftStruct(F(1, I32, true), F(2, Bool, true), F(3, Bool, true))), F(5, I64), F(6, I64), F(7, I16));

    /// <summary>version 1, schema 2, num_rows 3, row_groups 4, encryption_algorithm 8.</summary>
    public static readonly ThriftStruct FileMetaData = new(
        F(1, I32, true),
        L(2, SchemaElement, true),
        F(3, I64, true),
        L(4, RowGroup, true),
        L(5, KeyValue),
        F(6, Binary),
        L(7, new ThriftStruct(S(1, Empty))), S(8, new(S(1, Aes), S(2, Aes))), F(9, Binary));

    /// <summary>
    /// type 1, uncompressed_page_size 2, compressed_page_size 3, data_page_header 5, dictionary_page_header 7,
    /// data_page_header_v2 8.
    /// </summary>
    public static readonly ThriftStruct PageHeader = new(F(1, I32, true), F(2, I32, true), F(3, I32, true), F(4, I32),
        S(5, new(F(1, I32, true), F(2, I32, true), F(3, I32, true), F(4, I32, true), S(5, Statistics))),
        S(6, Empty),
        S(7, new(F(1, I32, true), F(2, I32, true), F(3, Bool))),
        S(
            8,
            new(
                F(1, I32, true), F(2, I32, true), F(3, I32, true), F(4, I32, true), F(5, I32, true), F(6, I32, true),
                F(7, Bool), S(8, Statistics))
        )
    );
}
